"""Boundary F1: how well the outlines of a segmentation fit.

Csurka et al., What is a good evaluation measure for semantic segmentation?, 2013,
https://www.bmva-archive.org.uk/bmvc/2013/Papers/paper0032/.
"""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jaxtyping import Array, Bool, Int

from jaxvision.metrics.accumulators import Sum


def boundaries(inside: Bool[Array, "b h w"]) -> Bool[Array, "b h w"]:
    """Pixels inside of which one of the four neighbours in the image is not."""
    shifted = [
        jnp.roll(inside, step, axis).at[edge].set(True)
        for axis, step, edge in (
            (1, 1, np.s_[:, 0]),
            (1, -1, np.s_[:, -1]),
            (2, 1, np.s_[:, :, 0]),
            (2, -1, np.s_[:, :, -1]),
        )
    ]
    whole = shifted[0] & shifted[1] & shifted[2] & shifted[3]
    return inside & ~whole


def near(marked: Bool[Array, "b h w"], radius: float) -> Bool[Array, "b h w"]:
    """Pixels whose Euclidean distance to a marked one is at most `radius` pixels."""
    reach = int(radius)
    found = marked
    padded = jnp.pad(marked, ((0, 0), (reach, reach), (0, 0)))
    height = marked.shape[1]
    for down in range(-reach, reach + 1):
        across = int(np.sqrt(radius**2 - down**2))
        rows = padded[:, reach + down : reach + down + height]
        wide = lax.reduce_window(
            rows, False, lax.bitwise_or, (1, 1, 2 * across + 1), (1, 1, 1), "SAME"
        )
        found |= wide
    return found


@struct.dataclass
class BoundaryF1:
    """The mean over images of each class's boundary F1, then over classes.

    Attributes:
      total: sum of the scores of each class.
      count: images in which the class occurs or is predicted.
    """

    total: Sum
    count: Sum

    @classmethod
    def of(
        cls,
        predicted: Int[Array, "b h w"],
        true: Int[Array, "b h w"],
        num_classes: int,
        tolerance: float = 0.0075,
    ) -> "BoundaryF1":
        """Compares label maps; pixels without a true class (255, or negative) are left out.

        Args:
          predicted, true: class indices.
          num_classes: how many classes there are.
          tolerance: how far outlines may be apart, as a part of the image's diagonal.
        """
        radius = max(1.0, tolerance * float(np.linalg.norm(true.shape[1:])))
        valid = (true >= 0) & (true < num_classes)
        rows = valid.any((1, 2))

        def of_class(index: Array) -> tuple[Array, Array]:
            ours, theirs = ((m == index) & valid for m in (predicted, true))
            outlines = [boundaries(inside) for inside in (ours, theirs)]
            sums = [line.sum((1, 2)) for line in outlines]
            hits = [
                (line & near(other, radius)).sum((1, 2))
                for line, other in (outlines, outlines[::-1])
            ]
            precision, recall = (h / jnp.maximum(n, 1) for h, n in zip(hits, sums))
            score = 2 * precision * recall / jnp.maximum(precision + recall, 1e-12)
            counted = (ours.any((1, 2)) | theirs.any((1, 2))) & rows
            return jnp.where(counted, score, 0).sum(), counted.sum()

        total, count = lax.map(of_class, jnp.arange(num_classes))
        return cls(total=total, count=count.astype(jnp.int32))

    def compute(self, name: str) -> dict[str, float]:
        """`{name: mean over the classes that were counted}`, NaN if none was."""
        total, count = np.asarray(self.total, np.float64), np.asarray(self.count)
        seen = count > 0
        return {name: float((total[seen] / count[seen]).mean()) if seen.any() else float("nan")}
