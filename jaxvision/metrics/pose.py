"""PCK: the share of key points that are found within a part of a reference length.

Yang and Ramanan, Articulated Human Detection with Flexible Mixtures of Parts, 2013,
https://doi.org/10.1109/TPAMI.2012.261. PCKh, whose length is the head's: Andriluka et al., 2D Human
Pose Estimation: New Benchmark and State of the Art Analysis, 2014,
https://doi.org/10.1109/CVPR.2014.471.

All functions take arrays of NumPy or of the device. Key points are (x, y, labelled) in pixels; what
is not labelled has 0 there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float

Points = Float[Array | np.ndarray, "*b k 3"]
Lengths = Float[Array | np.ndarray, "*b"]


def box_lengths(boxes: Float[Array | np.ndarray, "*b 4"]) -> Lengths:
    """The longer side of each box (x0, y0, x1, y1)."""
    return (boxes[..., 2:] - boxes[..., :2]).max(-1)


def segment_lengths(keypoints: Points, first: int, second: int) -> Lengths:
    """The distance of two key points of each object; 0 where one of them is not labelled.

    Args:
      keypoints: true ones.
      first, second: indices.
    """
    one, other = keypoints[..., first, :], keypoints[..., second, :]
    length = ((one[..., :2] - other[..., :2]) ** 2).sum(-1) ** 0.5
    return length * ((one[..., 2] > 0) & (other[..., 2] > 0))


def hits(
    found: Float[Array | np.ndarray, "*b k _"], truth: Points, lengths: Lengths, tolerance: float
) -> tuple[Bool[Array | np.ndarray, "*b k"], Bool[Array | np.ndarray, "*b k"]]:
    """(which key points are found, which count).

    A key point counts that is labelled, of an object that has a reference length.

    Args:
      found: (x, y) of each key point, and whatever follows.
      truth: the true ones.
      lengths: the reference length of each object; 0 where it has none.
      tolerance: how far away a key point may be found, in parts of that length.
    """
    away = ((found[..., :2] - truth[..., :2]) ** 2).sum(-1) ** 0.5
    counted = (truth[..., 2] > 0) & (lengths > 0)[..., None]
    return (away <= tolerance * lengths[..., None]) & counted, counted


def pck(
    hit: Bool[Array | np.ndarray, "n k"],
    counted: Bool[Array | np.ndarray, "n k"],
    names: Sequence[str],
) -> dict[str, float]:
    """`pck`, of all key points that count, and `pck/<name>` of each; NaN where none does.

    Args:
      hit, counted: of the objects of a whole data set, see `hits`.
      names: of the key points.
    """

    def share(right: Any, of: Any) -> float:
        return float(right.sum() / of.sum()) if of.any() else float("nan")

    scores = {"pck": share(hit, counted)}
    return scores | {f"pck/{n}": share(hit[:, i], counted[:, i]) for i, n in enumerate(names)}
