"""Adapters that train features on top of frozen encoders."""
