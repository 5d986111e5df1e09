"""Recipes to read, run and copy: each owns its default run file and nothing else."""

import sys

from mmalign.core.pace import starting

if sys.argv[0] == "-m":  # `python -m pipelines.results`: Python is looking for the module, whose imports take seconds
    starting(f"starting {next((word for word in sys.orig_argv if word.startswith('pipelines.')), 'a pipeline')}")
