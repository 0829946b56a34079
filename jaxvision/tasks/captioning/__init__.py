"""Captioning: a sentence about an image, word by word."""
