"""Networks that make better images of bad ones."""
