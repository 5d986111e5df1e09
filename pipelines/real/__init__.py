"""Models that were trained elsewhere and come in packages of the index: rows, runs and measures on them."""
