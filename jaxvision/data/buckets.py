"""Shapes of which each image is padded to one, so that little of a batch is padding."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from jaxvision.data.resizing import pair
from jaxvision.errors import UserError

Sides = tuple[int, int]


@dataclass(frozen=True)
class Buckets:
    """The shapes, and to which of them an image goes.

    Attributes:
      shapes: (height, width), from the smallest area on.
      listed: how many of them images go to; a further one holds what any of these holds, for
        batches of images of several.
      resized: (height, width) of an image -> that before it is padded.
    """

    shapes: tuple[Sides, ...]
    listed: int
    resized: Callable[[Sides], Sides]

    @classmethod
    def of(cls, listed: Sequence[int | Sequence[int]], resized: Callable[[Sides], Sides]):
        """The buckets of these shapes in any order.

        Raises:
          UserError: a shape is none, or is listed twice.
        """
        shapes = sorted(map(pair, listed), key=lambda shape: (shape[0] * shape[1], shape))
        if len(set(shapes)) < len(shapes):
            raise UserError(f"buckets name a shape twice: {shapes}.")
        whole = max(height for height, _ in shapes), max(width for _, width in shapes)
        more = () if whole in shapes else (whole,)
        return cls((*shapes, *more), len(shapes), resized)

    @property
    def whole(self) -> Sides:
        """The shape that holds what any other holds."""
        return self.shapes[-1]

    def of_image(self, size: Sides) -> int:
        """The place of an image's bucket: the smallest that holds it once it is resized.

        Where none does, that in which it has to be made the least smaller.
        """
        height, width = self.resized(size)
        fits = [min(h / height, w / width, 1.0) for h, w in self.shapes[: self.listed]]
        return fits.index(max(fits))

    def together(self, places: Iterable[int]) -> int:
        """The place of the smallest shape that holds all of these shapes."""
        these = [self.shapes[place] for place in places]
        sides = max(height for height, _ in these), max(width for _, width in these)
        return next(
            place
            for place, shape in enumerate(self.shapes)
            if shape[0] >= sides[0] and shape[1] >= sides[1]
        )
