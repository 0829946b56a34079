"""Augmentation on the device: pure functions of (key, images, ...) with fixed shapes.

Images are float32 [b, h, w, c] from 0 to 1, with 1 or 3 channels; `to_float` makes them so.
`augment` applies a list of augmentations, given as plain data, to a batch. Users add their own by
`@augment.register(name)`.
"""

from jaxvision.data.augment.color import to_float
from jaxvision.data.augment.policy import augment, names, normalize, register, validate
from jaxvision.data.augment.rand_augment import rand_augment

__all__ = ["augment", "names", "normalize", "rand_augment", "register", "to_float", "validate"]
