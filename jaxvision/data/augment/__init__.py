"""Augmentation on the device: pure functions of (key, images, ...) with fixed shapes.

Images are float32 [b, h, w, c] from 0 to 1, with 1 or 3 channels; `to_float` makes them so.
`augment` applies a list of augmentations, given as plain data, to a batch.
"""

from jaxvision.data.augment.color import to_float
from jaxvision.data.augment.policy import augment, names, normalize, rand_augment, validate

__all__ = ["augment", "names", "normalize", "rand_augment", "to_float", "validate"]
