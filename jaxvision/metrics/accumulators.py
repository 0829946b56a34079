"""Accumulators: pytrees of sums with `.compute() -> {name: value}`.

`of(...)` makes one from a batch on the device; `add` merges two; `compute` runs on the host, where
the sums have been widened to 64 bits, so that counts stay exact over any number of pixels.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Shaped

# Arrays on the device, NumPy's on the host, and whatever JAX puts into a tree that it takes apart.
Sum = Any


def add(a: Any, b: Any) -> Any:
    """The accumulators of two sets of batches together."""
    return jax.tree.map(lambda x, y: x + y, a, b)


def compute(accumulators: dict[str, Any]) -> dict[str, float]:
    """All metrics of a dict of accumulators, as plain numbers by plain name."""
    metrics: dict[str, float] = {}
    for name, accumulator in accumulators.items():
        metrics.update(accumulator.compute(name))
    return metrics


@struct.dataclass
class Mean:
    """A weighted mean over samples."""

    total: Sum
    weight: Sum

    @classmethod
    def of(cls, values: Shaped[Array, "*b"], weights: Shaped[Array, "*b"]) -> "Mean":
        """Adds up `values` (numbers or truths), each `weights` times (0 leaves it out)."""
        weights = weights.astype(jnp.float32)
        # A padded record may hold anything, even NaN: it is left out, not multiplied by zero.
        total = jnp.sum(jnp.where(weights > 0, values * weights, 0.0))
        return cls(total=total, weight=jnp.sum(weights))

    def compute(self, name: str) -> dict[str, float]:
        """`{name: mean}`, NaN where nothing was counted."""
        return {name: float(self.total) / float(self.weight) if self.weight else float("nan")}


@struct.dataclass
class TopK:
    """The share of samples whose true class is among the `k` of highest score."""

    correct: Sum
    count: Sum

    @classmethod
    def of(
        cls, logits: Float[Array, "b c"], labels: Int[Array, " b"], mask: Bool[Array, " b"], k: int
    ) -> "TopK":
        """Counts the samples whose `mask` is True, and which of them `logits` get right."""
        true = jnp.take_along_axis(logits, labels[:, None], -1)
        # Equal scores count against the prediction unless their class index is lower, as argmax.
        ahead = (logits > true) | (
            (logits == true) & (jnp.arange(logits.shape[-1]) < labels[:, None])
        )
        hit = (jnp.sum(ahead, -1) < k) & mask & ~jnp.isnan(true[:, 0])
        return cls(correct=jnp.sum(hit, dtype=jnp.int32), count=jnp.sum(mask, dtype=jnp.int32))

    def compute(self, name: str) -> dict[str, float]:
        """`{name: share}`, NaN where nothing was counted."""
        return {name: int(self.correct) / int(self.count) if self.count else float("nan")}


@struct.dataclass
class ConfusionMatrix:
    """Counts [true class, predicted class]; the source of every segmentation metric.

    Pixels that are void (of no class) are kept apart, for there are two published conventions: to
    leave them out, or to count what is predicted there as false positives.

    Attributes:
      counts: pixels of each true class (row) by predicted class.
      on_void: void pixels by predicted class.
      to_void: pixels of each true class where void is predicted, by networks that can.
      void_counts: whether what is predicted on void is a false positive.
    """

    counts: Sum
    on_void: Sum = 0
    to_void: Sum = 0
    class_names: tuple[str, ...] = struct.field(pytree_node=False, default=())
    void_counts: bool = struct.field(pytree_node=False, default=False)

    @classmethod
    def of(
        cls,
        predicted: Int[Array, "*b"],
        true: Int[Array, "*b"],
        num_classes: int,
        class_names: Sequence[str] = (),
        void_counts: bool = False,
    ) -> "ConfusionMatrix":
        """Counts the pixels of label maps by true and predicted class.

        True classes from num_classes on (255) are void, negative ones no pixel. Predictions from
        num_classes on are void too.
        """
        side = num_classes + 1
        cell = jnp.minimum(true, num_classes) * side + jnp.minimum(predicted, num_classes)
        flat = jnp.bincount(jnp.where(true < 0, side**2, cell).ravel(), length=side**2 + 1)
        matrix = flat[:-1].reshape(side, side).astype(jnp.int32)
        return cls(
            counts=matrix[:-1, :-1],
            on_void=matrix[-1, :-1],
            to_void=matrix[:-1, -1],
            class_names=tuple(class_names),
            void_counts=void_counts,
        )

    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(hits, pixels of the class, pixels predicted as it) of each class."""
        counts = np.asarray(self.counts, np.float64)
        occurring = counts.sum(1) + np.asarray(self.to_void)
        predicted = counts.sum(0) + self.void_counts * np.asarray(self.on_void)
        return np.diag(counts), occurring, predicted

    def iou(self) -> np.ndarray:
        """Intersection over union of each class; NaN where it neither occurs nor is guessed."""
        hit, occurring, predicted = self._parts()
        union = occurring + predicted - hit
        return np.where(union > 0, hit / np.maximum(union, 1), np.nan)

    def compute(self, name: str) -> dict[str, float]:
        """`miou`, `fwiou`, `pixel_accuracy`, `mean_class_accuracy`, `mdice`, `iou/<class>`.

        Means run over the classes that occur or are predicted (accuracy: that occur); `fwiou` is
        weighted by how often a class occurs. NaN where nothing was counted. The matrix has many
        names of its own: `name` is not among them.
        """
        (hit, occurring, predicted), iou = self._parts(), self.iou()
        there, total = occurring > 0, occurring.sum()
        recall = hit[there] / occurring[there]
        seen = ~np.isnan(iou)
        dice = 2 * hit[seen] / (occurring + predicted)[seen]
        metrics = {
            "miou": _mean(iou[seen]),
            "fwiou": float((occurring[there] * iou[there]).sum() / total) if total else np.nan,
            "pixel_accuracy": float(hit.sum() / total) if total else np.nan,
            "mean_class_accuracy": _mean(recall),
            "mdice": _mean(dice),
        }
        names = self.class_names or tuple(str(i) for i in range(len(iou)))
        metrics.update({f"iou/{n}": float(v) for n, v in zip(names, iou)})
        return metrics


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
