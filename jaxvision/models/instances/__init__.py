"""Networks that find objects with their masks or key points."""
