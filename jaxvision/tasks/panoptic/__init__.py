"""Things and stuff: every pixel is of one segment."""
