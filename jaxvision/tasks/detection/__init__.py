"""Detection: the classes and boxes of all objects."""
