"""Inception v3: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2015.

https://arxiv.org/abs/1512.00567. Reference: `torchvision.models.inception_v3(init_weights=False)`;
timm's has the same names. The module `Inception` is also that of v2 (`bninception.py`) and of v4
and Inception-ResNet (`inception_v4.py`), which are other tables of layers.

`inception_v3_fid` is the network of the Fréchet Inception distance (Heusel et al. 2017,
https://arxiv.org/abs/1706.08500): that of TensorFlow's file of 2015-12-05, whose poolings differ.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.conv_norm import ConvNormAct
from jaxvision.layers.head import Head
from jaxvision.layers.images import check_size
from jaxvision.layers.inception import Block, Conv, Fork, Layer, trunk
from jaxvision.layers.linear import Dense
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import avg_pool2d, global_average_pool, max_pool2d
from jaxvision.state_dict import renamed

pool_max = partial(max_pool2d, window=3, stride=2)
pool_mean = partial(avg_pool2d, window=3, stride=1, padding=1)


class Architecture(NamedTuple):
    """What sets one Inception network apart from another.

    Attributes:
      layers: the table of its layers for how often blocks are repeated; "features" marks the last
        map of a stride, "auxiliary" the one that the auxiliary head sees.
      head: the reference's name of the linear layer.
      smallest: side of an image that fits.
      step: sides that fit are up to six more than a multiple of this, or one less; 1: any do.
      use_bias, epsilon: of the convolutions and their norms.
    """

    layers: Callable[..., Sequence[Layer]]
    head: str
    smallest: int
    step: int = 1
    use_bias: bool = False
    epsilon: float = 1e-3


class AuxiliaryHead(nn.Module):
    """A classifier of the last map of stride 16, for training; the map is 17x17 or larger.

    Attributes:
      conv: makes a `ConvNormAct`.
    """

    num_classes: int
    conv: Callable[..., ConvNormAct]
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b k"]:
        x = self.conv(128, name="conv0")(avg_pool2d(x, 5, 3), train)
        x = global_average_pool(self.conv(768, 5, padding=0, name="conv1")(x, train))
        return Dense(self.num_classes, dtype=self.dtype, name="fc")(x)


class Inception(nn.Module):
    """Convolutions, Inception blocks, a mean and a linear layer.

    Attributes:
      architecture: all the rest.
      depths: how often blocks are repeated, where they are alike.
      aux_logits: whether v3 has its auxiliary head. Training then gives `{"logits", "aux1"}`, whose
        losses the paper weighs by 1 and 0.3.
      remat: recompute each block in the backward pass to save memory.
      features_only: return the last maps of strides 2, 4, 8, 16 and 32.
    """

    feature_strides: ClassVar[tuple[int, ...]] = (2, 4, 8, 16, 32)

    architecture: Architecture
    num_classes: int = 1000
    depths: Sequence[int] = ()
    aux_logits: bool = False
    dropout: float = 0.0
    remat: bool = False
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | Mapping[str, Array] | tuple[Float[Array, "b i j d"], ...]:
        has = self.architecture
        with_head = self.aux_logits and self.num_classes > 0 and not self.features_only
        with_head = with_head and (train or self.is_initializing())
        check_size(image, 299 if with_head else has.smallest, "This network")
        if any((side + 1) % has.step > 7 for side in image.shape[1:3]):
            rows, columns = image.shape[1:3]
            raise UserError(
                f"This network takes images whose sides are multiples of {has.step}; "
                f"not of {rows}x{columns}."
            )
        conv = partial(ConvNormAct, use_bias=has.use_bias, epsilon=has.epsilon, dtype=self.dtype)
        layers = has.layers(*self.depths)
        x, marked = trunk(image, layers, conv, train, self.remat, self.dtype)
        if self.features_only:
            return tuple(marked["features"])
        x = nn.Dropout(self.dropout, deterministic=not train)(global_average_pool(x))
        logits = Head(self.num_classes, dtype=self.dtype, name=has.head)(x)
        if not with_head:
            return logits
        head = AuxiliaryHead(self.num_classes, conv, self.dtype, name="AuxLogits")
        aux = head(marked["auxiliary"][0], train)
        return {"logits": logits, "aux1": aux} if train else logits


def _v3() -> list[Layer]:
    stem = (
        *(Conv("Conv2d_1a_3x3", 32, 3, 2, 0), Conv("Conv2d_2a_3x3", 32, 3, 1, 0)),
        *(Conv("Conv2d_2b_3x3", 64, 3), "features", pool_max),
        *(Conv("Conv2d_3b_1x1", 80), Conv("Conv2d_4a_3x3", 192, 3, 1, 0), "features", pool_max),
    )
    return [
        *stem,
        *(_v3_a("Mixed_5b", 32), _v3_a("Mixed_5c", 64), _v3_a("Mixed_5d", 64), "features"),
        _v3_b("Mixed_6a"),
        *(_v3_c("Mixed_6b", 128), _v3_c("Mixed_6c", 160), _v3_c("Mixed_6d", 160)),
        *(_v3_c("Mixed_6e", 192), "features", "auxiliary"),
        *(_v3_d("Mixed_7a"), _v3_e("Mixed_7b"), _v3_e("Mixed_7c"), "features"),
    ]


def _of_fid() -> list[Layer]:
    """v3 whose means leave the padding out, and whose last pooling takes maxima."""
    within = partial(pool_mean, count_include_pad=False)
    highest = partial(max_pool2d, window=3, stride=1, padding=1)

    def replaced(layer: Layer) -> Layer:
        if not isinstance(layer, Block):
            return layer
        pool = highest if layer.name == "Mixed_7c" else within
        branches = (tuple(pool if x is pool_mean else x for x in b) for b in layer.branches)
        return layer._replace(branches=tuple(branches))

    return [replaced(layer) for layer in _v3()]


def _v3_a(name: str, pooled: int) -> Block:
    return Block(
        name,
        (
            (Conv("branch1x1", 64),),
            (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, 5)),
            (
                Conv("branch3x3dbl_1", 64),
                Conv("branch3x3dbl_2", 96, 3),
                Conv("branch3x3dbl_3", 96, 3),
            ),
            (pool_mean, Conv("branch_pool", pooled)),
        ),
    )


def _v3_b(name: str) -> Block:
    double = (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, 3))
    return Block(
        name,
        (
            (Conv("branch3x3", 384, 3, 2, 0),),
            (*double, Conv("branch3x3dbl_3", 96, 3, 2, 0)),
            (pool_max,),
        ),
    )


def _v3_c(name: str, width: int) -> Block:
    return Block(
        name,
        (
            (Conv("branch1x1", 192),),
            (
                Conv("branch7x7_1", width),
                Conv("branch7x7_2", width, (1, 7)),
                Conv("branch7x7_3", 192, (7, 1)),
            ),
            (
                Conv("branch7x7dbl_1", width),
                Conv("branch7x7dbl_2", width, (7, 1)),
                Conv("branch7x7dbl_3", width, (1, 7)),
                Conv("branch7x7dbl_4", width, (7, 1)),
                Conv("branch7x7dbl_5", 192, (1, 7)),
            ),
            (pool_mean, Conv("branch_pool", 192)),
        ),
    )


def _v3_d(name: str) -> Block:
    return Block(
        name,
        (
            (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, 3, 2, 0)),
            (
                Conv("branch7x7x3_1", 192),
                Conv("branch7x7x3_2", 192, (1, 7)),
                Conv("branch7x7x3_3", 192, (7, 1)),
                Conv("branch7x7x3_4", 192, 3, 2, 0),
            ),
            (pool_max,),
        ),
    )


def _v3_e(name: str) -> Block:
    def fork(branch: str) -> Fork:
        return Fork((Conv(f"{branch}a", 384, (1, 3)), Conv(f"{branch}b", 384, (3, 1))))

    return Block(
        name,
        (
            (Conv("branch1x1", 320),),
            (Conv("branch3x3_1", 384), fork("branch3x3_2")),
            (Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, 3), fork("branch3x3dbl_3")),
            (pool_mean, Conv("branch_pool", 192)),
        ),
    )


_NAMES: dict[str, Any] = {
    "first": "Conv2d_1a_3x3.conv",
    "auxiliary": ("AuxLogits.",),
    # A trailing number of a module is an index by our naming rule, and is none in this one.
    "convert": partial(renamed, patterns=[(r"(branch\w+)_(\d)\.", r"\1.\2.")]),
    "export": partial(renamed, patterns=[(r"(branch\w+)\.(\d)\.", r"\1_\2.")]),
}
VARIANTS = {
    "inception_v3": Variant(
        Inception,
        {"architecture": Architecture(_v3, "fc", 75), "dropout": 0.5},
        "torchvision inception_v3",
        (299, 299, 3),
        "Szegedy et al. 2015, https://arxiv.org/abs/1512.00567",
        classifier=("fc", "AuxLogits.fc"),
        **_NAMES,
    ),
    "inception_v3_fid": Variant(
        Inception,
        {"architecture": Architecture(_of_fid, "fc", 75)},
        "tests/parity/networks/inception_fid.py inception_fid()",
        (299, 299, 3),
        "Heusel et al. 2017, https://arxiv.org/abs/1706.08500",
        classifier=("fc",),
        **_NAMES,
    ),
}
