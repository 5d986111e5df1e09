"""Rewards of texts, one file each."""
