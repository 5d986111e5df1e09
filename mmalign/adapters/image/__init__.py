"""Generators of images, one file per model family."""
