"""Autoencoding: images as codes, and images of codes."""
