"""Networks that generate images, and those that judge them."""
