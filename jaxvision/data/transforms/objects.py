"""Crops and zooms that look at the objects of an image, as SSD is trained with.

Liu et al., SSD: Single Shot MultiBox Detector, 2016, https://arxiv.org/abs/1512.02325, section 2.2;
with the numbers and the order of drawing of torchvision's `RandomIoUCrop` and `RandomZoomOut`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxvision.data.geometry import Geometry
from jaxvision.data.transforms.pipeline import Drawn, Record, image_size, register

_ROUNDS = 50  # of tries, after which no window is found; boxes of a few pixels allow few


@register("ssd_crop", random=True)
def ssd_crop(
    record: Record,
    rng: np.random.Generator,
    *,
    overlaps: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
    scale: Sequence[float] = (0.3, 1.0),
    ratio: Sequence[float] = (0.5, 2.0),
    tries: int = 40,
) -> Drawn:
    """Cuts a window whose overlap with an object is at least one drawn from `overlaps`.

    Objects stay whose centre is in the window, cut off at its border. Crowds do not decide on the
    window, and stay wherever they meet it. An image stays whole that has no objects, or of which no
    window is found.

    Args:
      overlaps: least intersection over union of the window with a box; 1 leaves the image whole.
      scale: bounds of the window's sides as parts of the image's, each drawn uniformly.
      ratio: bounds of its width / height.
      tries: windows that are drawn before another overlap is.
    """
    height, width = image_size(record)
    whole = Drawn(Geometry.identity((height, width)))
    boxes = record.get("boxes", np.zeros((0, 4), np.float32))
    crowd = record.get("box_crowd", np.zeros(len(boxes), bool))
    if crowd.all():
        return whole
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    for _ in range(_ROUNDS):
        least = overlaps[int(rng.integers(0, len(overlaps)))]
        if least >= 1:
            return whole
        for _ in range(tries):
            # In float32, as torchvision: whole pixels depend on the last bit.
            share = rng.random(2).astype(np.float32)
            parts = np.float32(scale[0]) + np.float32(scale[1] - scale[0]) * share
            w, h = int(width * parts[0]), int(height * parts[1])
            if not (w and h and ratio[0] <= w / h <= ratio[1]):
                continue
            places = rng.random(2)
            left, top = int((width - w) * places[0]), int((height - h) * places[1])
            window = np.array([left, top, left + w, top + h], np.float32)
            inside = ((window[:2] < centres) & (centres < window[2:])).all(1)
            deciding = inside & ~crowd
            if deciding.any() and _overlaps(boxes[deciding], window).max() >= least:
                crop = Geometry.crop((height, width), top, left, h, w)
                return Drawn(crop, kept=inside | crowd)
    return whole


def _overlaps(
    boxes: Float[np.ndarray, "n 4"], window: Float[np.ndarray, "4"]
) -> Float[np.ndarray, " n"]:
    """Intersection over union of each box with the window."""
    low, high = np.maximum(boxes[:, :2], window[:2]), np.minimum(boxes[:, 2:], window[2:])
    shared = np.maximum(high - low, 0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (window[2:] - window[:2]).prod()
    return shared / (areas - shared)


@register("ssd_expand", random=True)
def ssd_expand(
    record: Record,
    rng: np.random.Generator,
    *,
    probability: float = 0.5,
    factor: Sequence[float] = (1.0, 4.0),
    fill: int | Sequence[int] = (123, 117, 104),
) -> Drawn:
    """Puts the image at a random place of a larger one, so that its objects become small.

    Args:
      probability: of doing so at all.
      factor: bounds of the larger one's sides over the image's, drawn uniformly.
      fill: value of the rest, or one for each channel; the default is ImageNet's mean colour. Grey
        images get its mean.
    """
    height, width = image_size(record)
    if rng.random() >= probability:
        return Drawn(Geometry.identity((height, width)))
    part = factor[0] + (factor[1] - factor[0]) * rng.random()
    h, w = int(height * part), int(width * part)
    places = rng.random(2)
    left, top = int((w - width) * places[0]), int((h - height) * places[1])
    if record["image"].shape[-1] == 1 and not isinstance(fill, int):
        fill = round(sum(fill) / len(fill))
    return Drawn(Geometry.pad((height, width), top, left, h, w), fill=fill)
