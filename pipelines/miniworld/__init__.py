"""How the bundled models were trained: `python -m pipelines.miniworld NAME`."""
