"""Generative models: new images like those of the data."""
