"""How good an image is: metrics of two images."""
