"""Pose: where the key points of one object are."""
