"""From a run file to a finished run directory: build, train with hooks, evaluate, report."""
