"""Rewards of boxes that a text names (grounding, detection), one file each."""
