"""From features of windows to objects."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvision.classical import linear
from jaxvision.classical.linear import Linear
from jaxvision.classical.rcnn.learning import Regression
from jaxvision.ops.boxes import decode_deltas
from jaxvision.ops.suppression import batched_nms

_CANDIDATES = 2000  # of an image that take part in suppression


class Detections(NamedTuple):
    """The objects of an image, by falling score; `valid` says which rows are some."""

    boxes: Float[Array, "m 4"]
    scores: Float[Array, " m"]
    labels: Int[Array, " m"]
    valid: Bool[Array, " m"]


@partial(jax.jit, static_argnames=("threshold", "most", "least"))
def detect(
    features: Float[Array, "n d"],
    boxes: Float[Array, "n 4"],
    valid: Bool[Array, " n"],
    model: Linear,
    regression: Regression | None,
    size: Float[Array, "2"],
    threshold: float = 0.3,
    most: int = 100,
    least: float = -2.0,
) -> Detections:
    """Scores windows, moves them, and keeps the best of each class that overlap.

    Args:
      features: of the windows.
      boxes: of the windows.
      valid: which rows are windows.
      model: SVMs of the classes.
      regression: moves the windows, if it is given.
      size: (height, width) of the image, to which boxes are cut.
      threshold: overlap of suppression among the boxes of a class.
      most: objects of an image.
      least: the score that an object has at least.
    """
    scores = linear.scores(model, features)
    count = scores.shape[1]
    moved = jnp.repeat(boxes[:, None], count, 1)
    if regression is not None:
        deltas = jnp.einsum("nd,kdm->nkm", features, regression.weight) + regression.bias
        moved = decode_deltas(deltas, moved)
    height, width = size
    moved = jnp.clip(moved, 0, jnp.stack([width, height, width, height]))
    flat = (x.reshape(-1, *x.shape[2:]) for x in (moved, scores))
    candidates, values = flat
    labels = jnp.tile(jnp.arange(count, dtype=jnp.int32), len(boxes))
    usable = jnp.where(jnp.repeat(valid, count) & (values >= least), values, -jnp.inf)
    best = jax.lax.top_k(usable, min(len(usable), _CANDIDATES))[1]
    candidates, values, labels = candidates[best], values[best], labels[best]
    index, kept = batched_nms(
        candidates, values, labels, threshold, most, jnp.isfinite(usable[best])
    )
    return Detections(
        jnp.where(kept[:, None], candidates[index], 0),
        jnp.where(kept, values[index], 0),
        jnp.where(kept, labels[index], 0),
        kept,
    )
