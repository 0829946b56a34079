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
        """Of `values` (numbers or truths), each counted `weights` times (0 leaves it out)."""
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
        cls, logits: Float[Array, "b c"], labels: Int[Array, "b"], mask: Bool[Array, "b"], k: int
    ) -> "TopK":
        """Of `logits`, over the samples whose `mask` is True."""
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
    """Counts [true class, predicted class]; the source of every segmentation metric."""

    counts: Sum
    class_names: tuple[str, ...] = struct.field(pytree_node=False, default=())

    @classmethod
    def of(
        cls,
        predicted: Int[Array, "*b"],
        true: Int[Array, "*b"],
        num_classes: int,
        class_names: Sequence[str] = (),
    ) -> "ConfusionMatrix":
        """Entries whose true class is outside 0..num_classes-1 (255 = ignore) are left out."""
        valid = (true >= 0) & (true < num_classes)
        cell = jnp.where(valid, true * num_classes + predicted, num_classes**2)
        flat = jnp.bincount(cell.ravel(), length=num_classes**2 + 1)
        counts = flat[:-1].reshape(num_classes, num_classes).astype(jnp.int32)
        return cls(counts=counts, class_names=tuple(class_names))

    def iou(self) -> np.ndarray:
        """Intersection over union of each class; NaN where it neither occurs nor is guessed."""
        counts = np.asarray(self.counts, np.float64)
        hit = np.diag(counts)
        union = counts.sum(0) + counts.sum(1) - hit
        return np.where(union > 0, hit / np.maximum(union, 1), np.nan)

    def compute(self, name: str) -> dict[str, float]:
        """`miou`, `pixel_accuracy`, `mean_class_accuracy` and `iou/<class>` for each class.

        Means run over the classes that occur or are predicted (accuracy: that occur). NaN where
        nothing was counted. The matrix has many names of its own: `name` is not among them.
        """
        counts = np.asarray(self.counts, np.float64)
        iou, occurring = self.iou(), counts.sum(1)
        recall = np.diag(counts)[occurring > 0] / occurring[occurring > 0]
        metrics = {
            "miou": float(np.nanmean(iou)) if not np.isnan(iou).all() else float("nan"),
            "pixel_accuracy": float(np.diag(counts).sum() / counts.sum())
            if counts.sum()
            else float("nan"),
            "mean_class_accuracy": float(recall.mean()) if recall.size else float("nan"),
        }
        names = self.class_names or tuple(str(i) for i in range(len(iou)))
        metrics.update({f"iou/{n}": float(v) for n, v in zip(names, iou)})
        return metrics
