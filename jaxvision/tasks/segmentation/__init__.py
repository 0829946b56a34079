"""Semantic segmentation: one class a pixel or voxel."""
