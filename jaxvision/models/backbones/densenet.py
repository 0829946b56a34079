"""DenseNet: Huang et al., Densely Connected Convolutional Networks, 2017.

https://arxiv.org/abs/1608.06993. References: `torchvision.models.densenet121` ..., and for 32x32
images `pytorchcv` `densenet40_k12_cifar10` ..., whose names differ. As there, blocks are halved in
channels between also where there are no bottlenecks; in the paper only DenseNet-BC's are.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head
from jaxvision.layers.images import check_size
from jaxvision.layers.normalization import BatchNorm
from jaxvision.layers.pyramid import doubled
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import avg_pool2d, global_average_pool, max_pool2d
from jaxvision.state_dict import StateDict, renamed


class _Names(NamedTuple):
    """A reference's names of its layers; {} are numbers from 1, of a transition two: 1 and 2."""

    first: str
    layer: str
    norm: str
    conv: str
    transition_norm: str
    transition_conv: str
    last: str
    classifier: str


_TORCHVISION = _Names(
    "features.conv0",
    "features.denseblock{}.denselayer{}",
    "norm{}",
    "conv{}",
    "features.transition{0}.norm",
    "features.transition{0}.conv",
    "features.norm5",
    "classifier",
)
_PYTORCHCV = _Names(
    "features.init_block",
    "features.stage{}.unit{}",
    "conv{}.bn",
    "conv{}.conv",
    "features.stage{1}.trans{1}.conv.bn",
    "features.stage{1}.trans{1}.conv.conv",
    "features.post_activ.bn",
    "output",
)


class DenseLayer(nn.Module):
    """Batch norm, ReLU and a 3x3 convolution, whose output is put beside the input.

    Attributes:
      growth: channels of the output.
      bottleneck: whether the same with a 1x1 convolution of four times the growth comes before.
      names: what the reference calls its layers.
      dropout: of the output.
    """

    growth: int
    bottleneck: bool
    names: _Names
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        y, narrow = x, (3, self.growth)
        layers = (
            (("1", (1, 4 * self.growth)), ("2", narrow)) if self.bottleneck else (("", narrow),)
        )
        for number, (kernel, width) in layers:
            norm = BatchNorm(dtype=self.dtype, name=self.names.norm.format(number))
            conv = self.names.conv.format(number)
            y = nn.relu(norm(y, train))
            y = Conv2d(width, kernel, use_bias=False, dtype=self.dtype, name=conv)(y)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return jnp.concatenate([x, y], -1)


class DenseNet(nn.Module):
    """A convolution, blocks of dense layers that halve map and channels between, a linear layer.

    Attributes:
      depths: layers of the blocks.
      growth: channels that a layer adds.
      width: channels of the first convolution.
      bottleneck: see `DenseLayer`.
      small_images: the first convolution is 3x3 without stride and pooling.
      dropout: after every dense layer.
      remat: recompute each layer in the backward pass, which needs memory for its output alone.
      features_only: return the maps of strides 2, 4, 8, 16 and 32; of small images 1, 2 and 4.
      smp_maps: these maps are those of segmentation_models_pytorch's encoder: after the norm and
        ReLU that follow a block, and the last one before its ReLU.
    """

    num_classes: int = 1000
    depths: Sequence[int] = (6, 12, 24, 16)
    growth: int = 32
    width: int = 64
    bottleneck: bool = True
    small_images: bool = False
    dropout: float = 0.0
    remat: bool = False
    features_only: bool = False
    smp_maps: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        blocks = len(self.depths)
        return doubled(blocks) if self.small_images else doubled(blocks + 1, first=2)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        halved = 2 ** (len(self.depths) - 1)
        smallest = halved if self.small_images else 4 * halved - 3
        check_size(image, smallest, "This DenseNet")
        names = _PYTORCHCV if self.small_images else _TORCHVISION
        conv = partial(Conv2d, use_bias=False, dtype=self.dtype)

        def norm(x: Array, name: str) -> Array:
            return BatchNorm(dtype=self.dtype, name=name)(x, train)

        features = []
        if self.small_images:
            x = conv(self.width, 3, name=names.first)(image)
        else:
            x = nn.relu(norm(conv(self.width, 7, 2, name=names.first)(image), "features.norm0"))
            features.append(x)
            x = max_pool2d(x, 3, 2, 1)
        layer = nn.remat(DenseLayer, static_argnums=(2,)) if self.remat else DenseLayer
        for block, depth in enumerate(self.depths, start=1):
            if block > 1:
                normed = nn.relu(norm(x, names.transition_norm.format(block - 1, block)))
                features.append(normed if self.smp_maps else x)
                name = names.transition_conv.format(block - 1, block)
                x = avg_pool2d(conv(x.shape[-1] // 2, 1, name=name)(normed), 2)
            for index in range(1, depth + 1):
                name = names.layer.format(block, index)
                made = layer(
                    self.growth, self.bottleneck, names, self.dropout, self.dtype, name=name
                )
                x = made(x, train)
        x = norm(x, names.last)
        if self.features_only:
            return (*features, x if self.smp_maps else nn.relu(x))
        x = nn.relu(x)
        x = global_average_pool(x)
        return Head(self.num_classes, dtype=self.dtype, name=names.classifier)(x)


def _convert(state: StateDict) -> StateDict:
    """torchvision's published files still have `denselayer1.norm.1` of PyTorch 0.3."""
    return renamed(state, [(r"(denselayer\d+\.(norm|relu|conv))\.([12]\.)", r"\1\3")])


_PAPER = "Huang et al. 2017, https://arxiv.org/abs/1608.06993"


def _cifar(depth: int, growth: int, bottleneck: bool) -> Variant:
    layers = (depth - 4) // 3 // (2 if bottleneck else 1)
    name = f"densenet{depth}_k{growth}{'_bc' if bottleneck else ''}_cifar10"
    return Variant(
        DenseNet,
        {
            "depths": (layers,) * 3,
            "growth": growth,
            "width": 2 * growth,
            "bottleneck": bottleneck,
            "small_images": True,
        },
        f"pytorchcv {name}",
        (32, 32, 3),
        _PAPER,
        classifier=(_PYTORCHCV.classifier,),
        first=_PYTORCHCV.first,
    )


VARIANTS = {
    **{
        f"densenet{depth}": Variant(
            DenseNet,
            {"depths": depths, "growth": growth, "width": 2 * growth},
            f"torchvision densenet{depth}",
            paper=_PAPER,
            classifier=(_TORCHVISION.classifier,),
            first=_TORCHVISION.first,
            convert=_convert,
        )
        for depth, depths, growth in (
            (121, (6, 12, 24, 16), 32),
            (161, (6, 12, 36, 24), 48),
            (169, (6, 12, 32, 32), 32),
            (201, (6, 12, 48, 32), 32),
        )
    },
    "densenet40_k12_cifar10": _cifar(40, 12, bottleneck=False),
    "densenet100_k12_bc_cifar10": _cifar(100, 12, bottleneck=True),
}
