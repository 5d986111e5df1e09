"""Rewards of whole sets, one file each."""
