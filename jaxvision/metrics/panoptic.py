"""Panoptic quality: how well segments are found, and how exactly.

Kirillov et al., Panoptic Segmentation, 2019, https://arxiv.org/abs/1801.00868, section 4; the
numbers are those of https://github.com/cocodataset/panopticapi.

An image is a map of the numbers of segments, 0 for none, with the class of each. A found segment
is right if it overlaps a true one of its class by more than half, which at most one can. Quality is
PQ = SQ x RQ: the mean overlap of what is right, times its F1 score. Functions run on the host;
`PanopticQuality` counts on the device.
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Integer

from jaxvision.errors import UserError
from jaxvision.metrics.accumulators import Sum


class Segments(NamedTuple):
    """The segments of an image.

    Attributes:
      numbers: of the segment that each pixel is of; 0: of none (void).
      ids: the numbers that there are.
      label: the class of each, from 0 on.
      crowd: of true ones: not to be found, nor counted where it is.
    """

    numbers: Integer[np.ndarray, "h w"]
    ids: Int[np.ndarray, " n"]
    label: Int[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"] | None = None


def panoptic_counts(found: Segments, truth: Segments, num_classes: int) -> Float[np.ndarray, "k 4"]:
    """What an image adds to `panoptic_scores`.

    Void is not held against what is found there: it does not count in unions, and a wrong segment
    of which more than half is void or a crowd of its class is no false one. (Of several crowds of a
    class in an image the last one counts, as in panopticapi.)

    Returns:
      Of each class the sum of the overlaps of what is right, and the numbers of right, false and
      missed segments. Those of several images are added.

    Raises:
      UserError: the maps differ in size, one has a segment that is not listed, or the found one
        has no pixel of one that is.
    """
    if found.numbers.shape != truth.numbers.shape:
        raise UserError(
            f"The map of what is found is of {list(found.numbers.shape)} pixels, that of what is "
            f"there of {list(truth.numbers.shape)}."
        )
    there, seen = _places(truth, "true"), _places(found, "found")
    sizes = len(truth.ids) + 1, len(found.ids) + 1
    shared = np.bincount((there * sizes[1] + seen).ravel(), minlength=sizes[0] * sizes[1])
    shared = shared.reshape(sizes)  # pixels of each true and found segment; the first are void
    area_there, area_seen = shared.sum(1), shared.sum(0)
    if not area_seen[1:].all():
        absent = found.ids[np.argmin(area_seen[1:])]
        raise UserError(f"The found map has no pixel of the listed segment {absent}.")
    crowd = np.zeros(len(truth.ids), bool) if truth.crowd is None else truth.crowd.astype(bool)
    inside = shared[1:, 1:]
    union = area_there[1:, None] + area_seen[None, 1:] - inside - shared[0, 1:]
    overlap = inside / np.maximum(union, 1)
    alike = truth.label[:, None] == found.label[None, :]
    right = (overlap > 0.5) & alike & ~crowd[:, None]
    forgiven = shared[0, 1:].copy()
    last_crowd = {int(truth.label[place]): place for place in np.flatnonzero(crowd)}
    for label, place in last_crowd.items():
        forgiven += np.where(found.label == label, inside[place], 0)
    false = ~right.any(0) & ~(forgiven > 0.5 * area_seen[1:])
    missed = ~right.any(1) & ~crowd
    counts = np.zeros((num_classes, 4))
    rows, columns = np.nonzero(right)
    np.add.at(counts[:, 0], truth.label[rows], overlap[rows, columns])
    np.add.at(counts[:, 1], truth.label[rows], 1)
    np.add.at(counts[:, 2], found.label[false], 1)
    np.add.at(counts[:, 3], truth.label[missed], 1)
    return counts


def _places(segments: Segments, which: str) -> Int[np.ndarray, "h w"]:
    """The place of each pixel's segment among those listed, from 1; 0 where there is none."""
    listed = np.concatenate([[0], segments.ids]).astype(np.int64)
    order = np.argsort(listed)
    numbers = segments.numbers.astype(np.int64)
    place = order[np.searchsorted(listed, numbers, sorter=order).clip(max=len(listed) - 1)]
    if len(strange := numbers[listed[place] != numbers]):
        raise UserError(
            f"The {which} map has a segment of number {strange[0]}; listed are "
            f"{', '.join(map(str, segments.ids[:20]))}."
        )
    return place


def panoptic_scores(
    counts: Float[np.ndarray, "k 4"], class_names: Sequence[str], things: Collection[int]
) -> dict[str, float]:
    """`pq`, `sq` and `rq`; with `_things` and `_stuff` of these alone; with `/<class>` of each.

    They are means over the classes that occur, there or in what is found; NaN where there is none.

    Args:
      counts: the sum of `panoptic_counts` over all images.
      class_names: of all classes.
      things: indices of the classes that are things.
    """
    overlap, right, false, missed = counts.T
    seen = (right + false + missed) > 0
    whole = np.where(seen, right + 0.5 * false + 0.5 * missed, np.nan)
    each = {
        "pq": overlap / whole,
        "sq": np.where(seen, overlap / np.maximum(right, 1), np.nan),
        "rq": right / whole,
    }
    thing = np.isin(np.arange(len(counts)), list(things))
    scores = {}
    for part, chosen in (("", seen), ("_things", seen & thing), ("_stuff", seen & ~thing)):
        for name, values in each.items():
            scores[f"{name}{part}"] = float(values[chosen].mean()) if chosen.any() else np.nan
    for name, values in each.items():
        for label, value in zip(class_names, values, strict=True):
            scores[f"{name}/{label}"] = float(value)
    return scores


# -- on the device --------------------------------------------------------------------------------


class Numbered(NamedTuple):
    """The segments of images; number n is that of the n-th, from 1 on, which may have no pixel.

    Attributes:
      numbers: of the segment that each pixel is of; 0: of none (void).
      label: the class of each.
      crowd: see `Segments`.
    """

    numbers: Int[Array, "*b h w"]
    label: Int[Array, "*b n"]
    crowd: Bool[Array, "*b n"] | None = None


@struct.dataclass
class PanopticQuality:
    """The sums of `panoptic_counts` of images.

    Attributes:
      overlap: of each class the sum of the overlaps of what is right, float32 [k].
      right, false, missed: how many segments are, int32 [k].
      class_names: of all classes.
      things: indices of the classes that are things.
    """

    overlap: Sum
    right: Sum
    false: Sum
    missed: Sum
    class_names: tuple[str, ...] = struct.field(pytree_node=False, default=())
    things: tuple[int, ...] = struct.field(pytree_node=False, default=())

    @classmethod
    def of(
        cls,
        found: Numbered,
        truth: Numbered,
        valid: Bool[Array, " b"],
        class_names: Sequence[str],
        things: Sequence[int],
    ) -> "PanopticQuality":
        """Counts the segments of the images that are valid."""
        count = partial(_counts, num_classes=len(class_names))
        counts = jax.vmap(count)(found, truth)
        overlap, right, false, missed = (jnp.where(valid[:, None], x, 0).sum(0) for x in counts)
        return cls(
            overlap=overlap,
            right=right,
            false=false,
            missed=missed,
            class_names=tuple(class_names),
            things=tuple(things),
        )

    def compute(self, name: str) -> dict[str, float]:
        """`panoptic_scores`, which have names of their own: `name` is not among them."""
        counts = np.stack([self.overlap, self.right, self.false, self.missed], -1)
        return panoptic_scores(counts.astype(np.float64), self.class_names, self.things)


def _counts(found: Numbered, truth: Numbered, num_classes: int) -> tuple[Array, ...]:
    """What `panoptic_counts` says of an image, a column each."""
    crowd = jnp.zeros(truth.label.shape, bool) if truth.crowd is None else truth.crowd
    sizes = truth.label.shape[0] + 1, found.label.shape[0] + 1
    pairs = truth.numbers * sizes[1] + found.numbers
    shared = jnp.bincount(pairs.ravel(), length=sizes[0] * sizes[1]).reshape(sizes)
    area_there, area_seen = shared.sum(1)[1:], shared.sum(0)[1:]
    inside, on_void = shared[1:, 1:], shared[0, 1:]
    union = area_there[:, None] + area_seen[None] - inside - on_void
    alike = truth.label[:, None] == found.label[None]
    right = (2 * inside > union) & alike & ~crowd[:, None]
    same_class = truth.label[:, None] == truth.label[None]
    later = jnp.triu(same_class & crowd & (area_there > 0), 1).any(1)
    last_crowd = (crowd & ~later)[:, None] & alike
    forgiven = on_void + jnp.where(last_crowd, inside, 0).sum(0)
    false = (area_seen > 0) & ~right.any(0) & ~(2 * forgiven > area_seen)
    missed = (area_there > 0) & ~right.any(1) & ~crowd
    overlap = jnp.where(right, inside / jnp.maximum(union, 1), 0).sum(1)

    def of_class(values: Array, label: Array) -> Array:
        return jnp.zeros(num_classes, values.dtype).at[label].add(values)

    return (
        of_class(overlap, truth.label),
        of_class(right.any(1).astype(jnp.int32), truth.label),
        of_class(false.astype(jnp.int32), found.label),
        of_class(missed.astype(jnp.int32), truth.label),
    )
