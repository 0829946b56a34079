"""One object of an image, as networks see it that look at a single one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxvision.data.geometry import Geometry
from jaxvision.data.transforms.pipeline import Drawn, Record, Step, image_size, register
from jaxvision.errors import UserError, unknown

_CHOICES = ("largest", "random")
# What these parameters are where nothing is drawn; see `crop_object`.
_STEADY = {"choice": "largest", "scale_range": (1.0, 1.0), "rotation": 0.0, "shift": 0.0}


def _draws(parameters: Mapping[str, Any]) -> bool:
    given = {**_STEADY, **parameters}
    given["scale_range"] = tuple(given["scale_range"])
    return any(given[key] != steady for key, steady in _STEADY.items())


@dataclass(frozen=True)
class _CropObject:
    """The step of `crop_object`, with its parameters."""

    size: int
    scale: float
    choice: str
    scale_range: tuple[float, ...]
    rotation: float
    shift: float
    sampling: tuple[str, bool, int]

    def __call__(self, record: Record, rng: np.random.Generator) -> Drawn:
        height, width = image_size(record)
        box, kept, scale = np.array([0.0, 0.0, width, height]), None, 1.0
        candidates = np.flatnonzero(_candidates(record))
        if len(candidates):
            sides = record["boxes"][candidates, 2:] - record["boxes"][candidates, :2]
            drawn = self.choice == "random"
            place = rng.integers(len(candidates)) if drawn else sides.prod(1).argmax()
            chosen = candidates[int(place)]
            box, scale = record["boxes"][chosen].astype(np.float64), self.scale
            kept = np.arange(len(record["boxes"])) == chosen
        longer, middle = float((box[2:] - box[:2]).max()), (box[:2] + box[2:]) / 2
        side, angle = scale * longer, 0.0
        if (self.scale_range, self.rotation, self.shift) != ((1.0, 1.0), 0.0, 0.0):
            factor, turn, across, down = rng.random(4)
            side *= self.scale_range[0] + (self.scale_range[1] - self.scale_range[0]) * factor
            angle = math.radians(self.rotation * (2 * turn - 1))
            middle += self.shift * longer * np.array([2 * across - 1, 2 * down - 1])
        geometry = _square((height, width), middle, side, angle, self.size)
        return Drawn(geometry, *self.sampling, kept)


@register("crop_object", random=_draws, factory=True)
def crop_object(
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
) -> Step:
    """Cuts a square around the box of one object, brings it to `size`, and keeps that object alone.

    Crowds are never taken, nor, where objects have key points, those of which none is labelled. An
    image without an object that may be taken is taken whole.

    Rotation, scale and shift are one affine map with the crop, so that the image is sampled once.

    Args:
      size: side of the output.
      scale: the square's side over the longer side of the box.
      choice: which object: the one of the largest box, or one drawn at random.
      scale_range: bounds of a factor on the square's side, drawn uniformly.
      rotation: in degrees, drawn uniformly up to this either way.
      shift: of the square, drawn uniformly up to this part of the box's longer side either way,
        along each axis.
      fill: value of what lies outside of the image.

    Raises:
      UserError: there is no such choice, or a number is out of range.
    """
    if choice not in _CHOICES:
        raise unknown("choice of crop_object", choice, _CHOICES)
    if not isinstance(size, int) or size < 1:
        raise UserError(f"crop_object makes squares: size is {size!r}; expected one side.")
    bounds = tuple(map(float, scale_range))
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] or scale <= 0:
        raise UserError(
            f"crop_object has scale={scale!r} and scale_range={scale_range!r}; expected a number "
            "above 0 and two, the smaller first."
        )
    sampling = (interpolation, antialias, fill)
    return _CropObject(size, scale, choice, bounds, float(rotation), float(shift), sampling)


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
    x, y = middle.tolist()
    affine = (
        cos, -sin, size / 2 - cos * x + sin * y,
        sin, cos, size / 2 - sin * x - cos * y,
    )  # fmt: skip
    return Geometry(affine, source, (size, size))
