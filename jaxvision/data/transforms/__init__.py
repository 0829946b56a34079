"""Host transforms: geometry that brings images of any size to fixed shapes, in NumPy and OpenCV.

A transform is a function `(record, rng, *, parameters) -> Drawn`: it looks at a record, a dict with
`image` (uint8 [h, w, c]) and its annotations, and draws how the image is to be moved and sampled.
`move` then moves image and annotations, and keeps in `record["geometry"]` how the photograph came
to what it is. Random ones draw from `rng` alone. What keeps shapes (flips, colours, normalising)
belongs on the device: `jaxvision.data.augment`.

Users add their own by `register`; one that is no geometry gives back a changed record instead.
"""

from jaxvision.data.transforms import cropping, objects, proposals, resizing, several, single
from jaxvision.data.transforms.pipeline import (
    TRANSFORMS,
    Drawn,
    Pipeline,
    Record,
    Size,
    Step,
    Transform,
    compose,
    move,
    register,
)

__all__ = [
    "TRANSFORMS",
    "Drawn",
    "Pipeline",
    "Record",
    "Size",
    "Step",
    "Transform",
    "compose",
    "cropping",
    "move",
    "objects",
    "proposals",
    "register",
    "resizing",
    "several",
    "single",
]
