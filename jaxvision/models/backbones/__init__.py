"""Networks that classify images, and whose feature maps others stand on."""
