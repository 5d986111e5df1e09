"""Recipes to read, run and copy: each owns its default run file and nothing else."""
