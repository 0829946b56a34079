"""Receptive fields, followed operation by operation through a traced program.

Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, 2019,
https://doi.org/10.23915/distill.00021
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Field:
    """The part of the image that one element of an array depends on.

    Attributes:
      axes: the array's axes that run over the image, one for each spatial axis of it; empty once
        they are flattened away.
      size: pixels seen along each spatial axis.
      stride: pixels between neighbours along each.
      everywhere: whether it depends on the whole image, however large that is.
      flat: the array's axis that all places of the image are flattened into; None if none is.
    """

    axes: Axes
    size: tuple[Fraction, ...]
    stride: tuple[Fraction, ...]
    everywhere: bool = False
    flat: int | None = None

    @classmethod
    def of_image(cls, spatial: int) -> "Field":
        """The field of the image itself, [b, ..., c]."""
        one = (Fraction(1),) * spatial
        return cls(tuple(range(1, spatial + 1)), one, one)

    def windowed(
        self, taps: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
    ) -> "Field":
        """The field of what windows over the spatial axes give."""
        grown = [s + (k - 1) * d * j for s, j, k, d in zip(self.size, self.stride, taps, dilations)]
        return replace(
            self,
            size=tuple(map(Fraction, grown)),
            stride=tuple(j * s for j, s in zip(self.stride, strides)),
        )

    def spread(self, taps: Sequence[int], factors: Sequence[int]) -> "Field":
        """The field after a transposed convolution: finer by `factors`, of taps/factor inputs."""
        seen = [-(-k // f) for k, f in zip(taps, factors)]
        grown = [s + (n - 1) * j for s, j, n in zip(self.size, self.stride, seen)]
        finer = tuple(j / f for j, f in zip(self.stride, factors))
        return replace(self, size=tuple(grown), stride=finer)

    def moved(self, places: Mapping[int, int]) -> "Field":
        """The field with axis `i` at `places[i]`; without its axes if one of them has no place."""
        flat = None if self.flat is None else places.get(self.flat)
        if any(axis not in places for axis in self.axes):
            return replace(self, axes=(), flat=flat)
        return replace(self, axes=tuple(places[axis] for axis in self.axes), flat=flat)

    def mixed_by(self, axes: Sequence[int]) -> bool:
        """Whether summing over these axes brings all places of the image together."""
        return self.flat in axes or any(axis in axes for axis in self.axes)


def union(fields: Sequence[Field]) -> Field:
    """The field of what depends on all; the first one that still has axes gives the place."""
    first = next((f for f in fields if f.axes), fields[0])
    return Field(
        first.axes,
        tuple(max(sizes) for sizes in zip(*(f.size for f in fields))),
        first.stride,
        any(f.everywhere for f in fields),
        first.flat,
    )


def after(
    name: str,
    params: Mapping[str, Any],
    inputs: Sequence[Any],
    fields: Sequence[Field | None],
    output: Any,
) -> Field | None:
    """The field of an operation's output.

    Args:
      name: of the JAX primitive.
      params: of it.
      inputs: shapes of its operands.
      fields: of the operands; None for what does not depend on the image.
      output: shape of the output.
    """
    present = [field for field in fields if field is not None]
    if not present:
        return None
    field, shape = present[0], inputs[next(i for i, f in enumerate(fields) if f is not None)]
    if name == "conv_general_dilated":
        return _convolved(params, field, fields, inputs)
    if name.startswith("reduce_window"):
        taps, strides, dilations = (
            [params[key][axis] for axis in field.axes]
            for key in ("window_dimensions", "window_strides", "window_dilation")
        )
        return field.windowed(taps, strides, dilations)
    if name == "dot_general":
        return _multiplied(params, fields, inputs)
    if name == "transpose":
        places = {old: new for new, old in enumerate(params["permutation"])}
        return field.moved(places)
    if name == "slice" and params["strides"] and field.axes:
        strides = [params["strides"][axis] for axis in field.axes]
        return field.windowed([1] * len(strides), strides, [1] * len(strides))
    if name == "reshape":
        kept = _kept_axes(shape, output)
        moved = field.moved(kept)
        made = [a for a, n in enumerate(output) if n > 1 and a not in kept.values()]
        if field.axes and not moved.axes and len(made) == 1:
            return replace(moved, flat=made[0])
        return moved
    if name == "squeeze":
        left = [a for a in range(len(shape)) if a not in params["dimensions"]]
        return field.moved({axis: place for place, axis in enumerate(left)})
    if name == "broadcast_in_dim":
        return field.moved(dict(enumerate(params["broadcast_dimensions"])))
    if name.startswith("reduce_") or name in ("argmax", "argmin"):
        gone = params["axes"]
        left = [a for a in range(len(shape)) if a not in gone]
        moved = field.moved({axis: place for place, axis in enumerate(left)})
        return replace(moved, everywhere=True) if field.mixed_by(gone) else moved
    return union(present)


def _kept_axes(old: Sequence[int], new: Sequence[int]) -> dict[int, int]:
    """Axes of `old` that a reshape to `new` leaves whole, with their places."""
    before = np.cumprod([1, *old])
    after = np.cumprod([1, *new])
    return {
        i: j
        for i in range(len(old))
        for j in range(len(new))
        if old[i] == new[j] and before[i] == after[j] and old[i] > 1
    }


def _convolved(
    params: Mapping[str, Any], field: Field, fields: Sequence[Field | None], inputs: Sequence[Any]
) -> Field:
    numbers = params["dimension_numbers"]
    spatial = numbers.lhs_spec[2:]
    if fields[0] is None or tuple(spatial) != field.axes:
        return replace(field, everywhere=True)
    taps = [inputs[1][axis] for axis in numbers.rhs_spec[2:]]
    factors = params["lhs_dilation"]
    if any(f > 1 for f in factors):
        return field.spread(taps, factors)
    grown = field.windowed(taps, params["window_strides"], params["rhs_dilation"])
    return replace(grown, axes=tuple(numbers.out_spec[2:]))


def _multiplied(
    params: Mapping[str, Any], fields: Sequence[Field | None], inputs: Sequence[Any]
) -> Field:
    (contracted, batched) = params["dimension_numbers"]
    if all(field is not None for field in fields):
        # Queries by keys, or weights by values: every place of one sees every place of the other.
        return replace(union([f for f in fields if f is not None]), axes=(), everywhere=True)
    side = 0 if fields[0] is not None else 1
    field, shape, other = fields[side], inputs[side], inputs[1 - side]
    assert field is not None
    gone = contracted[side]
    order = [*batched[side], *(a for a in range(len(shape)) if a not in (*gone, *batched[side]))]
    start = 0 if side == 0 else len(other) - len(contracted[1]) - len(batched[1])
    places = {
        axis: place + (start if axis not in batched[side] else 0)
        for place, axis in enumerate(order)
    }
    lost = [axis for axis in gone if axis in field.axes]
    if lost:
        kept = [length for i, length in enumerate(other) if i not in contracted[1 - side]]
        if len(lost) == len(gone) == len(kept) == 1 and len(other) == 2:
            return _resized(field, lost[0], shape[lost[0]], kept[0], places, side, len(order))
        return replace(field.moved(places), everywhere=True)
    return replace(field.moved(places), everywhere=field.everywhere or field.mixed_by(gone))


def _resized(
    field: Field, axis: int, old: int, new: int, places: dict[int, int], side: int, rank: int
) -> Field:
    """An axis of the image times a matrix is a resize; linear interpolation sees two neighbours."""
    index = field.axes.index(axis)
    scale = Fraction(old, new)
    size, stride = list(field.size), list(field.stride)
    size[index] += stride[index] * max(1, int(scale))
    stride[index] *= scale
    moved = {**places, axis: rank if side == 0 else 0}
    return replace(field.moved(moved), size=tuple(size), stride=tuple(stride))
