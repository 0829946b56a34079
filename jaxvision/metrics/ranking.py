"""Metrics of sets of labels: average precision, counts of hits and misses."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from jaxvision.metrics.accumulators import Sum


def average_precision(
    scores: Float[np.ndarray, "n k"], truth: Bool[np.ndarray, "n k"]
) -> Float[np.ndarray, " k"]:
    """The mean precision over the ranks of a class's images; NaN of a class that has none.

    `sum((R_i - R_(i-1)) P_i)` over the distinct scores from the highest on, R the recall and P the
    precision of all images from that score on, as `sklearn.metrics.average_precision_score`; no
    interpolation.

    Args:
      scores: of each image and class; only their order counts.
      truth: whether the image has the class.
    """
    found = np.full(scores.shape[1], np.nan)
    for index, (score, true) in enumerate(zip(scores.T, truth.T.astype(bool))):
        if not true.any():
            continue
        order = np.argsort(-score, kind="stable")
        falling, hits = score[order], np.cumsum(true[order])
        last = np.append(falling[1:] != falling[:-1], True)  # of those with the same score
        precision = (hits / np.arange(1, len(hits) + 1))[last]
        found[index] = np.sum(np.diff(hits[last], prepend=0) * precision) / hits[-1]
    return found


@struct.dataclass
class LabelCounts:
    """Hits and misses of each class over images with sets of labels.

    Attributes:
      right: images where the class is found and there, [k].
      found: where it is found, [k].
      there: where it is there, [k].
      exact: images whose set is found exactly.
      images: that were counted.
    """

    right: Sum
    found: Sum
    there: Sum
    exact: Sum
    images: Sum

    @classmethod
    def of(
        cls, found: Bool[Array, "b k"], truth: Bool[Array, "b k"], mask: Bool[Array, " b"]
    ) -> "LabelCounts":
        """Counts the images whose `mask` is True."""
        rows = mask[:, None]
        count = lambda those: jnp.sum(those & rows, 0, dtype=jnp.int32)  # noqa: E731
        exact = (found == truth).all(-1) & mask
        return cls(
            right=count(found & truth),
            found=count(found),
            there=count(truth),
            exact=jnp.sum(exact, dtype=jnp.int32),
            images=jnp.sum(mask, dtype=jnp.int32),
        )

    def compute(self, name: str) -> dict[str, float]:
        """`micro_f1` of all pairs, `macro_f1`, the mean over the classes that occur or are found,
        and `exact_match`; NaN where nothing was counted."""
        right, both = (np.asarray(x, np.float64) for x in (self.right, self.found + self.there))
        seen = both > 0
        micro = 2 * right.sum() / both.sum() if seen.any() else np.nan
        macro = (2 * right[seen] / both[seen]).mean() if seen.any() else np.nan
        exact = int(self.exact) / int(self.images) if self.images else np.nan
        return {"micro_f1": float(micro), "macro_f1": float(macro), "exact_match": float(exact)}
