"""Language models that write, look, listen or judge, one file per model family."""
