"""Diffusion: images out of noise, a little less noise at a time."""
