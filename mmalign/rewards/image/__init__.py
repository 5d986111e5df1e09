"""Rewards of images, one file each."""
