"""How transforms are registered, composed and applied."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxvision.data import options
from jaxvision.data.annotations import KINDS, Kind
from jaxvision.data.buckets import Buckets
from jaxvision.data.geometry import Geometry
from jaxvision.errors import UserError
from jaxvision.registry import Registry

Record = dict[str, Any]
Size = int | Sequence[int]

SHAPE = "batch_shape"  # of a record: (height, width) of its batch, for a step with buckets


class Drawn(NamedTuple):
    """What a transform has drawn: a geometry, and how the image is sampled.

    Attributes:
      geometry: of the record's image to the next.
      interpolation: see `jaxvision.data.resizing.resize_image`.
      antialias: alike.
      fill: value of the image where the geometry pads, or one for each channel.
      kept: bool [n], which of the image's objects stay; None: all of which something is left.
    """

    geometry: Geometry
    interpolation: str = "bilinear"
    antialias: bool = True
    fill: int | Sequence[int] = 0
    kept: np.ndarray | None = None


Step = Callable[[Record, np.random.Generator], Drawn | Record]


class Transform:
    """A registered transform.

    Attributes:
      function: `(record, rng, *, parameters)`, or of a factory `(*, parameters) -> Step`, called
        once when the configuration is read; what it gives may have `buckets`.
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
    geometry, interpolation, antialias, fill, kept = drawn
    if kept is not None:
        for kind in kinds:
            if kind.present(record):
                record = {**record, **kind.select(record, kept)}
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
      buckets: shapes to which images are padded; None where transforms have no `buckets`.
    """

    steps: tuple[Step, ...]
    kinds: tuple[Kind, ...]
    random: bool
    buckets: Buckets | None = None

    def __call__(
        self, record: Record, rng: np.random.Generator, shape: tuple[int, int] | None = None
    ) -> Record:
        """The record, moved.

        Args:
          record: an image with its annotations.
          rng: of the record.
          shape: (height, width) of its batch, of transforms with buckets; None: of its own bucket.
        """
        if shape is not None:
            record = {**record, SHAPE: shape}
        for step in self.steps:
            drawn = step(record, rng)
            record = move(record, drawn, self.kinds) if isinstance(drawn, Drawn) else drawn
        record.pop(SHAPE, None)
        return record


def compose(steps: Sequence[Mapping[str, Any]], kinds: Sequence[Kind] | None = None) -> Pipeline:
    """One function from a list like `[{"name": "resize", "size": 224}, ...]`.

    Args:
      steps: transforms by name, with their parameters.
      kinds: of the annotations that records may have (None: all that there are).

    Raises:
      UserError: unknown transform or parameter, a required parameter is missing, or another
        transform comes before one with buckets.
    """
    bound: list[Step] = []
    random, buckets = False, None
    for step in steps:
        parameters = dict(step)
        name = parameters.pop("name", "")
        transform = TRANSFORMS[name]
        options.check(f"transform {name!r}", "parameter", transform.function, parameters)
        bound.append(transform.bind(parameters))
        random |= transform.random(parameters)
        own = getattr(bound[-1], "buckets", None)
        if own is not None and len(bound) > 1:
            raise UserError(
                f"Transform {name!r} has buckets, to which images go by the sizes of their files; "
                f"it has to come before {steps[0]['name']!r}."
            )
        buckets = buckets or own
    placed = [kind for kind in (KINDS.values() if kinds is None else kinds) if kind.placed]
    return Pipeline(tuple(bound), tuple(placed), random, buckets)


def image_size(record: Record) -> tuple[int, int]:
    """(height, width) of the image.

    Raises:
      UserError: it is a volume.
    """
    shape = record["image"].shape
    if len(shape) != 3:
        raise UserError(f"Host transforms are for images, this is a volume of {list(shape[:-1])}.")
    return shape[:2]
