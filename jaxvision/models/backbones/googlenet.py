"""GoogLeNet: Szegedy et al., Going Deeper with Convolutions, 2014.

https://arxiv.org/abs/1409.4842. `googlenet_lrn` is the paper's network, with local response
normalisation; its reference is tests/parity/networks/googlenet.py, and its constants, of which the
paper says nothing, are those of BVLC's Caffe model. `googlenet` is torchvision's: batch
normalisation, 3x3 in place of the 5x5 convolutions (a known bug that its weights depend on), a 2x2
last max pooling. Reference: `torchvision.models.googlenet(init_weights=False)`, whose published
weights were trained on images of mean 0.5 and deviation 0.5.

An auxiliary head's map is averaged to 4x4 in images that are not 224x224, as in torchvision.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.conv_norm import ConvNormAct
from jaxvision.layers.head import Head, flatten
from jaxvision.layers.images import check_size
from jaxvision.layers.inception import Block, Conv, Layer, trunk
from jaxvision.layers.linear import Dense
from jaxvision.models.variant import Variant
from jaxvision.ops.normalization import local_response_norm
from jaxvision.ops.pooling import adaptive_avg_pool2d, avg_pool2d, global_average_pool, max_pool2d

# Table 1 of the paper: 1x1, 3x3 reduced, 3x3, 5x5 reduced, 5x5, projection after pooling.
_BLOCKS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def _layers(batch_norm: bool) -> list[Layer]:
    pool = partial(max_pool2d, window=3, stride=2, ceil_mode=True)
    norm: list[Layer] = []
    if not batch_norm:
        norm.append(partial(local_response_norm, size=5, alpha=1e-4, beta=0.75))
    wide = 3 if batch_norm else 5
    layers: list[Layer] = [Conv("conv1", 64, 7, 2), "features", pool, *norm, Conv("conv2", 64)]
    layers += [Conv("conv3", 192, 3), "features", *norm, pool]
    for name, (one, reduced3, three, reduced5, five, projection) in _BLOCKS.items():
        branches = (
            (Conv("branch1", one),),
            (Conv("branch2_0", reduced3), Conv("branch2_1", three, 3)),
            (Conv("branch3_0", reduced5), Conv("branch3_1", five, wide)),
            (partial(max_pool2d, window=3, stride=1, padding=1), Conv("branch4_1", projection)),
        )
        layers.append(Block(f"inception{name}", branches))
        if name in ("4a", "4d"):
            layers.append("auxiliary")
        if name in ("3b", "4e", "5b"):
            layers.append("features")
        if name == "3b":
            layers.append(pool)
        if name == "4e":
            layers.append(partial(pool, window=2) if batch_norm else pool)
    return layers


class AuxiliaryHead(nn.Module):
    """A classifier of a map inside the network, for training: pooling, `conv`, `fc1`, `fc2`.

    Attributes:
      conv: makes a `ConvNormAct`.
      strided: whether the map is averaged over 5x5 windows of stride 3, as in the paper.
    """

    num_classes: int
    conv: Callable[..., ConvNormAct]
    strided: bool
    dropout: float = 0.7
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b k"]:
        if self.strided:
            x = avg_pool2d(x, [min(5, side) for side in x.shape[1:3]], 3)
        x = self.conv(128, name="conv")(adaptive_avg_pool2d(x, 4), train)
        x = nn.relu(Dense(1024, dtype=self.dtype, name="fc1")(flatten(x)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Dense(self.num_classes, dtype=self.dtype, name="fc2")(x)


class GoogLeNet(nn.Module):
    """Three convolutions, nine Inception blocks with max pooling between, a mean, a linear layer.

    Attributes:
      batch_norm: torchvision's form; otherwise the paper's.
      aux_logits: whether there are auxiliary heads. Training then gives `{"logits", "aux1",
        "aux2"}`, whose losses the paper weighs by 1, 0.3 and 0.3.
      aux_dropout: of the auxiliary heads.
      remat: recompute each block in the backward pass to save memory.
      features_only: return the maps of strides 2, 4, 8, 16 and 32, each before its pooling.
    """

    feature_strides: ClassVar[tuple[int, ...]] = (2, 4, 8, 16, 32)

    num_classes: int = 1000
    batch_norm: bool = True
    aux_logits: bool = False
    dropout: float = 0.2
    aux_dropout: float = 0.7
    remat: bool = False
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | Mapping[str, Array] | tuple[Float[Array, "b i j d"], ...]:
        smallest = 15 if self.batch_norm else 31
        check_size(image, smallest, "This GoogLeNet")
        conv = partial(ConvNormAct, norm=self.batch_norm, epsilon=1e-3, dtype=self.dtype)
        layers = _layers(self.batch_norm)
        x, marked = trunk(image, layers, conv, train, self.remat, self.dtype)
        if self.features_only:
            return tuple(marked["features"])
        x = nn.Dropout(self.dropout, deterministic=not train)(global_average_pool(x))
        logits = Head(self.num_classes, dtype=self.dtype, name="fc")(x)
        heads = {}
        if self.aux_logits and self.num_classes and (train or self.is_initializing()):
            for name, x in zip(("aux1", "aux2"), marked["auxiliary"], strict=True):
                heads[name] = AuxiliaryHead(
                    self.num_classes,
                    conv,
                    not self.batch_norm,
                    self.aux_dropout,
                    self.dtype,
                    name=name,
                )(x, train)
        return {"logits": logits, **heads} if heads and train else logits


def _variant(reference: str, **options: object) -> Variant:
    return Variant(
        GoogLeNet,
        options,
        reference,
        paper="Szegedy et al. 2014, https://arxiv.org/abs/1409.4842",
        classifier=("fc", "aux1.fc2", "aux2.fc2"),
        first="conv1.conv",
        auxiliary=("aux1.", "aux2."),
    )


VARIANTS = {
    "googlenet": _variant("torchvision googlenet"),
    "googlenet_lrn": _variant(
        "tests/parity/networks/googlenet.py GoogLeNet", batch_norm=False, dropout=0.4
    ),
}
