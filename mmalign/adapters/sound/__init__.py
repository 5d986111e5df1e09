"""Generators of sound, one file per model family."""
