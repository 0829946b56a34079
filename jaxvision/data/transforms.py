"""Host transforms: geometry that brings images of any size to fixed shapes, in NumPy and OpenCV.

A transform is a function `(record, rng, *, parameters) -> Drawn`: it looks at a record, a dict with
`image` (uint8 [h, w, c]) and its annotations, and draws how the image is to be moved and sampled.
`move` then moves image and annotations, and keeps in `record["geometry"]` how the photograph came
to what it is. Random ones draw from `rng` alone. What keeps shapes (flips, colours, normalising)
belongs on the device: `jaxvision.data.augment`.

Users add their own by `register`; one that is no geometry gives back a changed record instead.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxvision.data import options
from jaxvision.data.annotations import KINDS, Kind
from jaxvision.data.geometry import Geometry
from jaxvision.data.label_maps import ignored
from jaxvision.data.resizing import pair
from jaxvision.errors import UserError
from jaxvision.registry import Registry

Record = dict[str, Any]
Size = int | Sequence[int]


class Drawn(NamedTuple):
    """What a transform has drawn: a geometry, and how the image is sampled.

    Attributes:
      geometry: of the record's image to the next.
      interpolation: see `jaxvision.data.resizing.resize_image`.
      antialias: alike.
      fill: value of the image where the geometry pads.
    """

    geometry: Geometry
    interpolation: str = "bilinear"
    antialias: bool = True
    fill: int = 0


Step = Callable[[Record, np.random.Generator], Drawn | Record]


class Transform:
    """A registered transform.

    Attributes:
      function: `(record, rng, *, parameters)`, or of a factory `(*, parameters) -> Step`, called
        once when the configuration is read.
      random: whether it draws random numbers, or a function of its parameters that says so.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        random: bool | Callable[[Mapping[str, Any]], bool],
        factory: bool,
    ):
        # A registry tells parts apart by where they were defined.
        self.__module__, self.__qualname__ = function.__module__, function.__qualname__
        self.function, self._random, self._factory = function, random, factory

    def bind(self, parameters: Mapping[str, Any]) -> Step:
        """The transform with its parameters, which have been checked."""
        if self._factory:
            return self.function(**parameters)
        return functools.partial(self.function, **parameters) if parameters else self.function

    def random(self, parameters: Mapping[str, Any]) -> bool:
        """Whether it draws random numbers with these parameters."""
        return self._random(parameters) if callable(self._random) else self._random


TRANSFORMS: Registry[Transform] = Registry("host transform")


def register(
    name: str,
    *,
    random: bool | Callable[[Mapping[str, Any]], bool] = False,
    factory: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that makes the function below it the host transform `name`; see `Transform`."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        TRANSFORMS.add(name, Transform(function, random, factory))
        return function

    return enter


def move(record: Record, drawn: Drawn, kinds: Sequence[Kind]) -> Record:
    """A record whose image and annotations have followed what was drawn."""
    geometry, interpolation, antialias, fill = drawn
    moved = dict(record)
    moved["image"] = geometry.image(record["image"], interpolation, antialias, fill)
    before = record.get("geometry")
    moved["geometry"] = geometry if before is None else before.then(geometry)
    for kind in kinds:
        if kind.present(record):
            moved.update(kind.move(record, geometry))
    return moved


@dataclass(frozen=True)
class Pipeline:
    """Transforms one after another: a function `(record, rng) -> record`.

    Attributes:
      steps: the transforms, their parameters bound.
      kinds: the annotations that have to follow.
      random: whether any of them draws random numbers.
    """

    steps: tuple[Step, ...]
    kinds: tuple[Kind, ...]
    random: bool

    def __call__(self, record: Record, rng: np.random.Generator) -> Record:
        for step in self.steps:
            drawn = step(record, rng)
            record = move(record, drawn, self.kinds) if isinstance(drawn, Drawn) else drawn
        return record


def compose(steps: Sequence[Mapping[str, Any]], kinds: Sequence[Kind] | None = None) -> Pipeline:
    """One function from a list like `[{"name": "resize", "size": 224}, ...]`.

    Args:
      steps: transforms by name, with their parameters.
      kinds: of the annotations that records may have (None: all that there are).

    Raises:
      UserError: unknown transform or parameter, or a required parameter is missing.
    """
    bound, random = [], False
    for step in steps:
        parameters = dict(step)
        name = parameters.pop("name", "")
        transform = TRANSFORMS[name]
        options.check(f"transform {name!r}", "parameter", transform.function, parameters)
        bound.append(transform.bind(parameters))
        random |= transform.random(parameters)
    placed = [kind for kind in (KINDS.values() if kinds is None else kinds) if kind.placed]
    return Pipeline(tuple(bound), tuple(placed), random)


def _size(record: Record) -> tuple[int, int]:
    """(height, width) of the image.

    Raises:
      UserError: it is a volume.
    """
    shape = record["image"].shape
    if len(shape) != 3:
        raise UserError(f"Host transforms are for images, this is a volume of {list(shape[:-1])}.")
    return shape[:2]


# -- resizing -------------------------------------------------------------------------------------


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
    return Drawn(Geometry.resize(_size(record), pair(size)), interpolation, antialias)


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
    height, width = _size(record)
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
    height, width = _size(record)
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
    height, width = _size(record)
    target = (max(1, round(height * factor)), max(1, round(width * factor)))
    return Drawn(Geometry.resize((height, width), target), interpolation, antialias)


# -- padding and crops ----------------------------------------------------------------------------


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
    have, want = _size(record), pair(size)
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
    have, (height, width) = _size(record), pair(size)
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
    have, (height, width) = _size(record), pair(size)
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
    height, width = _size(record)
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


# -- several views --------------------------------------------------------------------------------


def _views_random(parameters: Mapping[str, Any]) -> bool:
    return any(compose(view["transforms"]).random for view in parameters["views"].values())


@dataclass(frozen=True)
class _Views:
    """The step of `views`: by batch key, how many and by which transforms."""

    pipelines: Mapping[str, tuple[int, Pipeline]]
    keep_image: bool

    def __call__(self, record: Record, rng: np.random.Generator) -> Record:
        out = {k: v for k, v in record.items() if k != "image" or self.keep_image}
        for key, (count, pipeline) in self.pipelines.items():
            drawn = [pipeline({"image": record["image"]}, rng)["image"] for _ in range(count)]
            if len({view.shape for view in drawn}) > 1:
                sizes = sorted({f"{v.shape[1]}x{v.shape[0]}" for v in drawn})
                raise UserError(
                    f"The images of {key} differ in size ({' and '.join(sizes)}); "
                    "its transforms must bring them to one."
                )
            out[key] = np.stack(drawn)
        return out


@register("views", random=_views_random, factory=True)
def views(*, views: Mapping[str, Mapping[str, Any]], keep_image: bool = False) -> Step:
    """Several crops of one image, each drawn with random numbers of its own.

    `{"global": {"count": 2, "transforms": [...]}, "local": {...}}` gives `views_global`, uint8
    [2, h, w, c], and `views_local`. Annotations stay those of the image.

    Args:
      views: by name, how many and by which transforms.
      keep_image: whether the record keeps `image`.

    Raises:
      UserError: a view has no count or transforms, or they are wrong.
    """
    pipelines = {}
    for name, view in views.items():
        if set(view) != {"count", "transforms"}:
            raise UserError(
                f"View {name!r} is given by {sorted(view)}; expected 'count' and 'transforms'."
            )
        count = view["count"]
        if not isinstance(count, int) or count < 1:
            raise UserError(f"View {name!r} has the count {count!r}; expected 1 or more.")
        pipelines[f"views_{name}"] = (count, compose(view["transforms"], ()))

    return _Views(pipelines, keep_image)
