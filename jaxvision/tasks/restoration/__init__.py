"""Better images of bad ones: super-resolution."""
