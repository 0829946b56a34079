"""The projection head of DINO: Caron et al., Emerging Properties in Self-Supervised ViTs, 2021.

https://arxiv.org/abs/2104.14294. Reference: `DINOHead` of facebookresearch/dino, whose parameters
have the same names.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.linear import Dense
from jaxvision.layers.parameters import parameter
from jaxvision.models.pretraining.batch_norm import BatchStandardised

_NORMAL = nn.initializers.truncated_normal(0.02)


class DinoHead(nn.Module):
    """Three layers with GELU, an L2-normalised bottleneck, and a layer whose rows have norm one.

    Attributes:
      features: of the output, the "prototypes".
      hidden: channels of the first two layers.
      bottleneck: channels of the third.
      norm: whether the hidden layers are batch-normalised, as the authors do it for convolutional
        backbones. The statistics are always those of the batch.
    """

    features: int = 65536
    hidden: int = 2048
    bottleneck: int = 256
    norm: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        layer = 0
        for _ in range(2):
            x = Dense(self.hidden, kernel_init=_NORMAL, name=f"mlp_{layer}")(x)
            if self.norm:
                layer += 1
                x = BatchStandardised(name=f"mlp_{layer}")(x)
            x = jax.nn.gelu(x, False)
            layer += 2
        x = Dense(self.bottleneck, kernel_init=_NORMAL, name=f"mlp_{layer}")(x)
        x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        return _UnitRows(self.features, name="last_layer")(x)


class _UnitRows(nn.Module):
    """A linear layer under weight normalisation (Salimans and Kingma 2016) with lengths of one."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        shape = (self.features, x.shape[-1])
        direction = parameter(self, "weight_v", nn.initializers.lecun_normal(1, 0), shape)
        return x @ (direction / jnp.linalg.norm(direction, axis=1, keepdims=True)).T


class WithHead(nn.Module):
    """A backbone that gives a vector for each image, and a head on it.

    Attributes:
      backbone: called with images and `train`.
      head: called with the vectors.
    """

    backbone: nn.Module
    head: nn.Module

    def __call__(self, image: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b o"]:
        return self.head(self.backbone(image, train))
