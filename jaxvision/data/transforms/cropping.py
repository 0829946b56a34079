"""Parts of images, and images with padding around them."""

import math
from collections.abc import Sequence

import numpy as np

from jaxvision.data.geometry import Geometry
from jaxvision.data.label_maps import ignored
from jaxvision.data.resizing import pair
from jaxvision.data.transforms.pipeline import Drawn, Record, Size, image_size, register


@register("pad_to")
def pad_to(
    record: Record,
    rng: np.random.Generator,
    *,
    size: Size,
    fill: int = 0,
    center: bool = False,
) -> Drawn:
    """Pads to at least (height, width) below and to the right (or around, with `center`).

    Masks are padded with 255 (65535 of more than 255 classes), which losses and metrics ignore.
    """
    have, want = image_size(record), pair(size)
    height, width = max(have[0], want[0]), max(have[1], want[1])
    top, left = ((height - have[0]) // 2, (width - have[1]) // 2) if center else (0, 0)
    return Drawn(Geometry.pad(have, top, left, height, width), fill=fill)


def _padded(have: tuple[int, int], want: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """What `pad_to` with `center` makes: (height, width) and the (top, left) of the image in it."""
    height, width = max(have[0], want[0]), max(have[1], want[1])
    return (height, width), ((height - have[0]) // 2, (width - have[1]) // 2)


@register("center_crop")
def center_crop(record: Record, rng: np.random.Generator, *, size: Size) -> Drawn:
    """Cuts the central (height, width); smaller images are padded first."""
    have, (height, width) = image_size(record), pair(size)
    whole, (down, right) = _padded(have, (height, width))
    top, left = round((whole[0] - height) / 2), round((whole[1] - width) / 2)  # as torchvision
    return Drawn(Geometry.crop(have, top - down, left - right, height, width))


@register("random_crop", random=True)
def random_crop(
    record: Record,
    rng: np.random.Generator,
    *,
    size: Size,
    max_share: float = 1.0,
) -> Drawn:
    """Cuts a (height, width) window at a uniform position; smaller images are padded first.

    Args:
      max_share: up to ten windows are drawn until no class has more than this share of the mask
        (as mmsegmentation does it, with 0.75).
    """
    have, (height, width) = image_size(record), pair(size)
    whole, (down, right) = _padded(have, (height, width))
    mask = record.get("segmentation") if max_share < 1 else None
    for _ in range(10):
        top = int(rng.integers(0, whole[0] - height + 1)) - down
        left = int(rng.integers(0, whole[1] - width + 1)) - right
        geometry = Geometry.crop(have, top, left, height, width)
        if mask is None:
            break
        window = mask[max(top, 0) : top + height, max(left, 0) : left + width]
        classes = window[window != ignored(window.dtype)]
        if classes.size and np.bincount(classes).max() <= max_share * classes.size:
            break
    return Drawn(geometry)


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """As `rng.uniform`, in less time."""
    return low + (high - low) * rng.random()


@register("random_resized_crop", random=True)
def random_resized_crop(
    record: Record,
    rng: np.random.Generator,
    *,
    size: Size,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    interpolation: str = "bilinear",
    antialias: bool = False,
) -> Drawn:
    """Cuts a window of random area and aspect ratio and resizes it to `size`.

    Szegedy et al., Going Deeper with Convolutions, 2014 (https://arxiv.org/abs/1409.4842), with
    torchvision's sampling: ten tries, then the central crop of nearest permitted aspect ratio.

    Args:
      scale: bounds of the window's area as a fraction of the image's, drawn uniformly.
      ratio: bounds of its width / height, drawn uniformly in the logarithm.
    """
    height, width = image_size(record)
    for _ in range(10):
        area = height * width * _uniform(rng, scale[0], scale[1])
        aspect = math.exp(_uniform(rng, math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(0, height - h + 1))
            left = int(rng.integers(0, width - w + 1))
            break
    else:
        w = min(width, round(height * ratio[1]))
        h = min(height, round(width / ratio[0]))
        top, left = (height - h) // 2, (width - w) // 2
    window = Geometry.window((height, width), top, left, h, w, pair(size))
    return Drawn(window, interpolation, antialias)
