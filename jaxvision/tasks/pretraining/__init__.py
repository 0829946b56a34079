"""Self-supervised learning: features from images without labels."""
