"""Objects with their masks or key points."""
