"""Rewards of sounds, one file each."""
