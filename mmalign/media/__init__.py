"""The only place that knows files and value ranges: images in [0, 1], sound in [-1, 1]."""
