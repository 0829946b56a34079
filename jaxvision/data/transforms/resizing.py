"""Images brought to another size."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxvision.data.geometry import Geometry
from jaxvision.data.resizing import pair
from jaxvision.data.transforms.pipeline import Drawn, Record, Size, image_size, register
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


@register("resize_shortest", random=_shortest_random)
def resize_shortest(
    record: Record,
    rng: np.random.Generator,
    *,
    size: int | Sequence[int] = 800,
    longest: int = 1333,
    shape: Size | None = None,
    multiple: int = 0,
    fill: int = 0,
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> Drawn:
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
      fill: value of the padding.

    Raises:
      UserError: both `shape` and `multiple` are given.
    """
    if shape is not None and multiple:
        raise UserError("resize_shortest has either a 'shape' or a 'multiple', not both.")
    height, width = image_size(record)
    shorter = size if isinstance(size, int) else int(size[int(rng.integers(len(size)))])
    whole = pair(-(-longest // 32) * 32 if shape is None else shape)
    factor = min(shorter / min(height, width), longest / max(height, width))
    if not multiple:
        factor = min(factor, whole[0] / height, whole[1] / width)
    part = max(1, int(height * factor)), max(1, int(width * factor))
    if multiple:
        whole = -(-part[0] // multiple) * multiple, -(-part[1] // multiple) * multiple
    return Drawn(_padded((height, width), part, whole, False), interpolation, antialias, fill)


def _padded(
    source: tuple[int, int], part: tuple[int, int], whole: tuple[int, int], center: bool
) -> Geometry:
    """Stretches to `part`, and puts that into `whole`, in the middle or at the upper left."""
    top, left = ((whole[0] - part[0]) // 2, (whole[1] - part[1]) // 2) if center else (0, 0)
    return Geometry.resize(source, part).then(Geometry.pad(part, top, left, *whole))
