"""How much of their code autoencoders use: entries of a codebook, latent variables."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jaxvision.metrics.accumulators import Sum

ACTIVE = 0.01  # nats


@struct.dataclass
class CodeUsage:
    """How often each entry of a codebook is used.

    Attributes:
      counts: by entry, [k].
    """

    counts: Sum

    @classmethod
    def of(
        cls, indices: Int[Array, " b *size"], mask: Bool[Array, " b"], codes: int
    ) -> "CodeUsage":
        """Counts the places of the images whose `mask` is True."""
        rows = mask.reshape(-1, *[1] * (indices.ndim - 1))
        found = jnp.bincount(jnp.where(rows, indices, codes).ravel(), length=codes + 1)
        return cls(counts=found[:codes].astype(jnp.int32))

    def compute(self, name: str) -> dict[str, float]:
        """`codebook_perplexity` and `codebook_usage`; they have names of their own.

        The perplexity is the exponential of the entropy of the entries: how many there would be if
        all were used alike, 1 if one alone is. The usage is the share of entries that are used. NaN
        where nothing was counted.
        """
        counts = np.asarray(self.counts, np.float64)
        if not counts.sum():
            return {"codebook_perplexity": np.nan, "codebook_usage": np.nan}
        share = counts[counts > 0] / counts.sum()
        return {
            "codebook_perplexity": float(np.exp(-(share * np.log(share)).sum())),
            "codebook_usage": float((counts > 0).mean()),
        }


@struct.dataclass
class ActiveUnits:
    """How many latent variables say something of the image.

    Attributes:
      total: divergence of each from its prior in nats, added up over images, [k].
      count: of images.
    """

    total: Sum
    count: Sum

    @classmethod
    def of(cls, kl: Float[Array, "b k"], mask: Bool[Array, " b"]) -> "ActiveUnits":
        """Adds up the images whose `mask` is True."""
        total = jnp.where(mask[:, None], kl, 0.0).sum(0)
        return cls(total=total, count=jnp.sum(mask, dtype=jnp.int32))

    def compute(self, name: str) -> dict[str, float]:
        """`{name: count}` of those with 0.01 nats or more on average; NaN without images.

        Burda et al., Importance Weighted Autoencoders, 2015, https://arxiv.org/abs/1509.00519,
        count those whose mean varies by as much.
        """
        if not int(self.count):
            return {name: float("nan")}
        means = np.asarray(self.total, np.float64) / int(self.count)
        return {name: float((means >= ACTIVE).sum())}
