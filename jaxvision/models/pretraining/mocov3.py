"""The heads of MoCo v3: Chen et al., An Empirical Study of Training Self-Supervised ViTs, 2021.

https://arxiv.org/abs/2104.02057. Reference: `MoCo` of facebookresearch/moco-v3; the projection is
its encoder's `head`, the prediction its `predictor`, and the layers have the same names.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.linear import Dense
from jaxvision.models.pretraining.batch_norm import BatchStandardised, standardised
from jaxvision.ops.sharing import as_batch, as_views


class Projection(nn.Module):
    """Dense layers without biases, each but the last followed by batch norm and ReLU.

    Batch norms have the statistics of the batch, always; the last one has no scale and no bias.

    Attributes:
      layers: how many.
      hidden: channels between them.
      features: of the output.
      last_norm: whether the output is batch-normalised.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    layers: int = 3
    hidden: int = 4096
    features: int = 256
    last_norm: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        for layer in range(self.layers - 1):
            x = Dense(self.hidden, use_bias=False, dtype=self.dtype, name=f"layers_{3 * layer}")(x)
            x = jax.nn.relu(BatchStandardised(name=f"layers_{3 * layer + 1}")(x))
        last = f"layers_{3 * (self.layers - 1)}"
        x = Dense(self.features, use_bias=False, dtype=self.dtype, name=last)(x)
        return standardised(x) if self.last_norm else x


class MoCo(nn.Module):
    """A backbone, its projection `head`, and the student's `predictor`.

    Heads see one view of the images at a time, as their batch norms have statistics of each.

    Attributes:
      backbone: called with images and `train`; gives a vector for each.
      head: called with the vectors.
      predictor: called with what the head gives.
    """

    backbone: nn.Module
    head: nn.Module
    predictor: nn.Module

    def __call__(
        self, views: Float[Array, "v b h w c"], train: bool = False
    ) -> Float[Array, "v b o"]:
        """The student's queries, which the predictor makes."""
        return jnp.stack([self.predictor(view) for view in self.keys(views, train)])

    def keys(self, views: Float[Array, "v b h w c"], train: bool = False) -> Float[Array, "v b o"]:
        """A teacher's keys, which the head makes."""
        by_view = as_views(self.backbone(as_batch(views), train), len(views))
        return jnp.stack([self.head(view) for view in by_view])
