"""Networks that encode images, and make them again of the codes.

Called plainly they give the reconstruction. They have the methods `encode(image, train)` and
`decode(latent, train)`, called by `model.apply(..., method="encode")`, and say by `CODE` what
`encode` gives: a "vector", a "posterior", or vectors for which `quantize(code, train)` finds
entries of a "codebook". Sides of images must be multiples of `stride`.
"""
