"""Rewards that ask another model or another reward, one file each."""
