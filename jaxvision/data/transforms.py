"""Host transforms: geometry that brings images of any size to fixed shapes, in NumPy and OpenCV.

Each transform is a function `(record, rng, **parameters) -> record` over a dict with `image`
(uint8 [h, w, c]) and optionally `segmentation` ([h, w], resized by nearest neighbour) and `boxes`
([n, 4] as x0, y0, x1, y1 in pixels); masks and boxes follow the image's geometry exactly. Random
ones draw from `rng` alone. What keeps shapes (flips, colours, normalising) belongs on the device:
`jaxvision.data.augment`.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxvision.data.geometry import IGNORE
from jaxvision.data.resizing import pair as _pair
from jaxvision.data.resizing import resize_image, resize_mask
from jaxvision.errors import UserError, unknown

Record = dict[str, Any]


def crop(record: Record, top: int, left: int, height: int, width: int) -> Record:
    """Cuts a window; boxes are shifted and clipped to it."""
    window = np.s_[top : top + height, left : left + width]
    out = {**record, "image": record["image"][window]}
    if "segmentation" in record:
        out["segmentation"] = record["segmentation"][window]
    if "boxes" in record:
        shifted = record["boxes"] - np.array([left, top, left, top], np.float32)
        out["boxes"] = np.clip(shifted, 0, np.array([width, height, width, height], np.float32))
    return out


def resize(
    record: Record,
    rng: np.random.Generator | None = None,
    *,
    size: int | Sequence[int],
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> Record:
    """Resizes to exactly (height, width), whatever the aspect ratio."""
    old_height, old_width = record["image"].shape[:2]
    height, width = _pair(size)
    out = {**record, "image": resize_image(record["image"], size, interpolation, antialias)}
    if "segmentation" in record:
        out["segmentation"] = resize_mask(record["segmentation"], size)
    if "boxes" in record:
        scale = np.array([width / old_width, height / old_height] * 2, np.float32)
        out["boxes"] = record["boxes"] * scale
    return out


def resize_shorter(
    record: Record,
    rng: np.random.Generator | None = None,
    *,
    size: int,
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> Record:
    """Resizes so that the shorter side is `size`, keeping the aspect ratio."""
    height, width = record["image"].shape[:2]
    shorter = min(height, width)
    target = (size * height // shorter, size * width // shorter)  # rounded down as torchvision does
    return resize(record, size=target, interpolation=interpolation, antialias=antialias)


def resize_longer(
    record: Record,
    rng: np.random.Generator | None = None,
    *,
    size: int,
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> Record:
    """Resizes so that the longer side is `size`, keeping the aspect ratio."""
    height, width = record["image"].shape[:2]
    longer = max(height, width)
    target = (max(1, size * height // longer), max(1, size * width // longer))
    return resize(record, size=target, interpolation=interpolation, antialias=antialias)


def pad_to(
    record: Record,
    rng: np.random.Generator | None = None,
    *,
    size: int | Sequence[int],
    fill: int = 0,
    center: bool = False,
) -> Record:
    """Pads to at least (height, width) below and to the right (or around, with `center`).

    Masks are padded with 255, which losses and metrics ignore.
    """
    height, width = record["image"].shape[:2]
    down, right = (max(0, want - have) for want, have in zip(_pair(size), (height, width)))
    if not down and not right:
        return record
    top, left = (down // 2, right // 2) if center else (0, 0)
    border = ((top, down - top), (left, right - left))
    out = {**record, "image": np.pad(record["image"], (*border, (0, 0)), constant_values=fill)}
    if "segmentation" in record:
        out["segmentation"] = np.pad(record["segmentation"], border, constant_values=IGNORE)
    if "boxes" in record:
        out["boxes"] = record["boxes"] + np.array([left, top, left, top], np.float32)
    return out


def center_crop(
    record: Record, rng: np.random.Generator | None = None, *, size: int | Sequence[int]
) -> Record:
    """Cuts the central (height, width); smaller images are padded first."""
    record = pad_to(record, size=size, center=True)
    height, width = _pair(size)
    have_height, have_width = record["image"].shape[:2]
    top, left = round((have_height - height) / 2), round((have_width - width) / 2)  # as torchvision
    return crop(record, top, left, height, width)


def random_crop(
    record: Record,
    rng: np.random.Generator,
    *,
    size: int | Sequence[int],
    max_share: float = 1.0,
) -> Record:
    """Cuts a (height, width) window at a uniform position; smaller images are padded first.

    Args:
      max_share: up to ten windows are drawn until no class has more than this share of the mask
        (as mmsegmentation does it, with 0.75).
    """
    record = pad_to(record, size=size, center=True)
    height, width = _pair(size)
    have_height, have_width = record["image"].shape[:2]
    for _ in range(10):
        top = int(rng.integers(0, have_height - height + 1))
        left = int(rng.integers(0, have_width - width + 1))
        window = crop(record, top, left, height, width)
        if max_share >= 1 or "segmentation" not in window:
            break
        known = window["segmentation"][window["segmentation"] != IGNORE]
        if known.size and np.bincount(known).max() <= max_share * known.size:
            break
    return window


def random_scale(
    record: Record,
    rng: np.random.Generator,
    *,
    scale: Sequence[float] = (0.5, 2.0),
    interpolation: str = "bilinear",
    antialias: bool = False,
) -> Record:
    """Resizes by a factor drawn uniformly from `scale`, keeping the aspect ratio."""
    factor = rng.uniform(scale[0], scale[1])
    height, width = record["image"].shape[:2]
    target = (max(1, round(height * factor)), max(1, round(width * factor)))
    return resize(record, size=target, interpolation=interpolation, antialias=antialias)


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """As `rng.uniform`, in less time."""
    return low + (high - low) * rng.random()


def random_resized_crop(
    record: Record,
    rng: np.random.Generator,
    *,
    size: int | Sequence[int],
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    interpolation: str = "bilinear",
    antialias: bool = False,
) -> Record:
    """Cuts a window of random area and aspect ratio and resizes it to `size`.

    Szegedy et al., Going Deeper with Convolutions, 2014 (https://arxiv.org/abs/1409.4842), with
    torchvision's sampling: ten tries, then the central crop of nearest permitted aspect ratio.

    Args:
      scale: bounds of the window's area as a fraction of the image's, drawn uniformly.
      ratio: bounds of its width / height, drawn uniformly in the logarithm.
    """
    height, width = record["image"].shape[:2]
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
    window = crop(record, top, left, h, w)
    return resize(window, size=size, interpolation=interpolation, antialias=antialias)


TRANSFORMS: dict[str, Callable[..., Record]] = {
    function.__name__: function
    for function in (
        resize,
        resize_shorter,
        resize_longer,
        pad_to,
        center_crop,
        random_crop,
        random_scale,
        random_resized_crop,
    )
}


def compose(steps: Sequence[Mapping[str, Any]]) -> Callable[[Record, np.random.Generator], Record]:
    """One function from a list like `[{"name": "resize", "size": 224}, ...]`.

    Raises:
      UserError: unknown transform or parameter, or a required parameter is missing.
    """
    bound: list[tuple[Callable[..., Record], dict[str, Any]]] = []
    for step in steps:
        parameters = dict(step)
        name = parameters.pop("name", "")
        if name not in TRANSFORMS:
            raise unknown("host transform", name, TRANSFORMS)
        signature = inspect.signature(TRANSFORMS[name]).parameters
        keywords = {p.name: p for p in signature.values() if p.kind is p.KEYWORD_ONLY}
        for given in parameters:
            if given not in keywords:
                raise unknown(f"parameter of transform {name!r}", given, keywords)
        for keyword in keywords.values():
            if keyword.default is keyword.empty and keyword.name not in parameters:
                raise UserError(f"Transform {name!r} needs the parameter {keyword.name!r}.")
        bound.append((TRANSFORMS[name], parameters))

    def apply(record: Record, rng: np.random.Generator) -> Record:
        for function, parameters in bound:
            record = function(record, rng, **parameters)
        return record

    return apply


def is_random(steps: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any of the steps draws random numbers."""
    return any(str(step.get("name", "")).startswith("random_") for step in steps)
