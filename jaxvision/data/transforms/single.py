"""One object of an image, as networks see it that look at a single one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxvision.data.geometry import Geometry
from jaxvision.data.transforms.pipeline import Drawn, Record, image_size, register
from jaxvision.errors import unknown

_CHOICES = ("largest", "random")
_STEADY: dict[str, Any] = {
    "choice": "largest",
    "scale_range": (1.0, 1.0),
    "rotation": 0.0,
    "shift": 0.0,
}


def _draws(parameters: Mapping[str, Any]) -> bool:
    given = {**_STEADY, **parameters}
    given["scale_range"] = tuple(given["scale_range"])
    return any(given[key] != steady for key, steady in _STEADY.items())


@register("crop_object", random=_draws)
def crop_object(
    record: Record,
    rng: np.random.Generator,
    *,
    size: int,
    scale: float = 1.25,
    choice: str = "largest",
    scale_range: Sequence[float] = (1.0, 1.0),
    rotation: float = 0.0,
    shift: float = 0.0,
    fill: int = 0,
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> Drawn:
    """Cuts a square around the box of one object, brings it to `size`, and keeps that object alone.

    Crowds are never taken, nor where objects have key points those of which none is labelled. An
    image without an object that could be is taken whole, as one of the size of its box.

    Rotation, scale and shift are one affine map with the crop, so that the image is sampled once.

    Args:
      size: side of the output.
      scale: the square's side over the longer side of the box.
      choice: which object: the one of the largest box, or any, drawn at random.
      scale_range: bounds of a factor on the square's side, drawn uniformly.
      rotation: in degrees, drawn uniformly up to this either way.
      shift: of the square, drawn uniformly up to this part of the box's longer side either way,
        along each axis.
      fill: value of what lies outside of the image.

    Raises:
      UserError: there is no such choice.
    """
    if choice not in _CHOICES:
        raise unknown("choice of crop_object", choice, _CHOICES)
    height, width = image_size(record)
    box, kept = np.array([0, 0, width, height], np.float64), None
    side = float(max(height, width))
    candidates = np.flatnonzero(_candidates(record))
    if len(candidates):
        extents = (record["boxes"][candidates, 2:] - record["boxes"][candidates, :2]).prod(1)
        place = rng.integers(len(candidates)) if choice == "random" else extents.argmax()
        chosen = candidates[int(place)]
        box = record["boxes"][chosen].astype(np.float64)
        side = scale * float((box[2:] - box[:2]).max())
        kept = np.arange(len(record["boxes"])) == chosen
    middle = (box[:2] + box[2:]) / 2
    angle = 0.0
    if _draws({"scale_range": scale_range, "rotation": rotation, "shift": shift}):
        factor, turn, *along = rng.random(4)
        side *= scale_range[0] + (scale_range[1] - scale_range[0]) * factor
        angle = math.radians(rotation * (2 * turn - 1))
        middle = middle + shift * (box[2:] - box[:2]).max() * (2 * np.array(along) - 1)
    geometry = _square((height, width), middle, side, angle, size)
    return Drawn(geometry, interpolation, antialias, fill, kept)


def _candidates(record: Record) -> Bool[np.ndarray, " n"]:
    """Which objects of a record may be taken."""
    if "boxes" not in record:
        return np.zeros(0, bool)
    found = ~np.asarray(record.get("box_crowd", np.zeros(len(record["boxes"]), bool)))
    if "keypoints" in record:
        found &= (record["keypoints"][..., 2] > 0).any(1)
    return found


def _square(
    source: tuple[int, int], middle: Float[np.ndarray, "2"], side: float, angle: float, size: int
) -> Geometry:
    """Brings a square of this side about a point to the output, and turns it clockwise as seen."""
    cos, sin = size / side * math.cos(angle), size / side * math.sin(angle)
    x, y = middle
    affine = (
        cos, -sin, size / 2 - cos * x + sin * y,
        sin, cos, size / 2 - sin * x - cos * y,
    )  # fmt: skip
    return Geometry(affine, source, (size, size))
