"""Images brought to another size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from jaxvision.data.buckets import Buckets
from jaxvision.data.geometry import Geometry
from jaxvision.data.resizing import pair
from jaxvision.data.transforms.pipeline import (
    SHAPE,
    Drawn,
    Record,
    Size,
    Step,
    image_size,
    register,
)
from jaxvision.errors import UserError


@register("resize")
def resize(
    record: Record,
    rng: np.random.Generator,
    *,
    size: Size,
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> Drawn:
    """Resizes to exactly (height, width), whatever the aspect ratio."""
    return Drawn(Geometry.resize(image_size(record), pair(size)), interpolation, antialias)


@register("resize_shorter")
def resize_shorter(
    record: Record,
    rng: np.random.Generator,
    *,
    size: int,
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> Drawn:
    """Resizes so that the shorter side is `size`, keeping the aspect ratio."""
    height, width = image_size(record)
    shorter = min(height, width)
    target = (size * height // shorter, size * width // shorter)  # rounded down as torchvision does
    return Drawn(Geometry.resize((height, width), pair(target)), interpolation, antialias)


@register("resize_longer")
def resize_longer(
    record: Record,
    rng: np.random.Generator,
    *,
    size: int,
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> Drawn:
    """Resizes so that the longer side is `size`, keeping the aspect ratio."""
    height, width = image_size(record)
    longer = max(height, width)
    target = (max(1, size * height // longer), max(1, size * width // longer))
    return Drawn(Geometry.resize((height, width), pair(target)), interpolation, antialias)


@register("random_scale", random=True)
def random_scale(
    record: Record,
    rng: np.random.Generator,
    *,
    scale: Sequence[float] = (0.5, 2.0),
    interpolation: str = "bilinear",
    antialias: bool = False,
) -> Drawn:
    """Resizes by a factor drawn uniformly from `scale`, keeping the aspect ratio."""
    factor = rng.uniform(scale[0], scale[1])
    height, width = image_size(record)
    target = (max(1, round(height * factor)), max(1, round(width * factor)))
    return Drawn(Geometry.resize((height, width), target), interpolation, antialias)


@register("letterbox")
def letterbox(
    record: Record,
    rng: np.random.Generator,
    *,
    size: Size,
    center: bool = True,
    fill: int = 114,
    enlarge: bool = True,
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> Drawn:
    """Resizes to fit into (height, width), keeping the aspect ratio, and pads to exactly that.

    Sides are rounded, and of an odd rest the larger half lies below and to the right, as in
    Darknet's successors.

    Args:
      size: of the output.
      center: whether the image lies in the middle, or at the upper left.
      fill: value of the padding.
      enlarge: whether smaller images are enlarged.
    """
    (height, width), whole = image_size(record), pair(size)
    factor = min(whole[0] / height, whole[1] / width)
    factor = factor if enlarge else min(factor, 1.0)
    part = max(1, round(height * factor)), max(1, round(width * factor))
    return Drawn(_padded((height, width), part, whole, center), interpolation, antialias, fill)


def _shortest_random(parameters: Mapping[str, Any]) -> bool:
    return not isinstance(parameters.get("size", 0), int)


@dataclass(frozen=True)
class _Shortest:
    """The step of `resize_shortest`, with its parameters.

    Attributes:
      buckets: of the images; None where all have one shape, or each its own.
    """

    size: int | Sequence[int]
    longest: int
    shape: tuple[int, int]
    multiple: int
    buckets: Buckets | None
    sampling: tuple[str, bool, int]

    def __call__(self, record: Record, rng: np.random.Generator) -> Drawn:
        size = height, width = image_size(record)
        drawn = self.size
        shorter = drawn if isinstance(drawn, int) else int(drawn[int(rng.integers(len(drawn)))])
        factor = min(shorter / min(size), self.longest / max(size))
        whole, part = self.shape, _scaled(size, factor)
        if self.buckets is not None:
            own = self.buckets.shapes[self.buckets.of_image(size)]
            whole = record.get(SHAPE, own)
            for shape in (own, whole):
                if part[0] > shape[0] or part[1] > shape[1]:
                    factor = min(factor, shape[0] / height, shape[1] / width)
                    part = _scaled(size, factor)
        elif self.multiple:
            whole = _multiples(part, self.multiple)
        else:
            part = _scaled(size, min(factor, whole[0] / height, whole[1] / width))
        interpolation, antialias, fill = self.sampling
        return Drawn(_padded(size, part, whole, False), interpolation, antialias, fill)


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))


def _multiples(size: tuple[int, int], of: int) -> tuple[int, int]:
    """The next multiples of a number."""
    return -(-size[0] // of) * of, -(-size[1] // of) * of


def _largest(shortest: int, longest: int, size: tuple[int, int]) -> tuple[int, int]:
    """What `resize_shortest` makes of an image, before it is padded."""
    return _scaled(size, min(shortest / min(size), longest / max(size)))


@register("resize_shortest", random=_shortest_random, factory=True)
def resize_shortest(
    *,
    size: int | Sequence[int] = 800,
    longest: int = 1333,
    shape: Size | None = None,
    multiple: int = 0,
    buckets: Sequence[Size] = (),
    fill: int = 0,
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> Step:
    """Resizes so that the shorter side is `size`, but the longer at most `longest`; then pads.

    The rule of torchvision's detectors, whose sides are rounded down; the padding lies below and to
    the right. All images of a batch have one shape, so it is fixed here, but by `multiple`.

    Args:
      size: of the shorter side; of several one is drawn for each image.
      longest: of the longer side, at most.
      shape: (height, width) of the output. An image that does not fit into it (upright ones into a
        wide shape) is made smaller until it does. Without, a square that all fit into, of a side
        that is the next multiple of 32 from `longest`.
      multiple: instead, each image is padded to the next multiples of this: fit for prediction, and
        for batches of one image.
      buckets: instead, several shapes: each image is padded to the smallest that holds it, at the
        largest `size`, and batches have images of one bucket. An image that fits into none is made
        smaller until it does. It has to be the first transform, since images go to buckets by the
        sizes of their files.
      fill: value of the padding.

    Raises:
      UserError: more than one of `shape`, `multiple` and `buckets` is given, or a shape is none.
    """
    ways = {"shape": shape is not None, "multiple": multiple > 0, "buckets": len(buckets) > 0}
    given = [name for name, there in ways.items() if there]
    if len(given) > 1:
        names = " and ".join(map(repr, given))
        raise UserError(f"resize_shortest pads in one way; it has {names}, not both.")
    among = None
    if buckets:
        largest = size if isinstance(size, int) else max(size)
        among = Buckets.of(buckets, partial(_largest, largest, longest))
    whole = pair(_multiples((longest, longest), 32) if shape is None else shape)
    return _Shortest(size, longest, whole, multiple, among, (interpolation, antialias, fill))


def _padded(
    source: tuple[int, int], part: tuple[int, int], whole: tuple[int, int], center: bool
) -> Geometry:
    """Stretches to `part`, and puts that into `whole`, in the middle or at the upper left."""
    top, left = ((whole[0] - part[0]) // 2, (whole[1] - part[1]) // 2) if center else (0, 0)
    return Geometry.resize(source, part).then(Geometry.pad(part, top, left, *whole))
