"""One experiment for each founding paper that can be shown on the embedded worlds, with what would falsify it."""
