"""Darknet: the trunks of YOLO.

Darknet-53: Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018,
https://arxiv.org/abs/1804.02767. Reference: mmdetection's `Darknet(depth=53)`, which ends with its
maps; the classifier is that of the authors' darknet53.cfg, the mean of the last map and one linear
layer, here `fc`. Darknet-19: YOLO9000, 2016, https://arxiv.org/abs/1612.08242, and Darknet-24, the
trunk of You Only Look Once, 2015, https://arxiv.org/abs/1506.02640. References: holocron's
`darknet19` and `darknet24`; the latter has no norms. All have leaky ReLUs of slope 0.1.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.conv_norm import ConvNormAct
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head
from jaxvision.layers.images import check_size
from jaxvision.layers.normalization import BatchNorm
from jaxvision.layers.pyramid import doubled
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import global_average_pool, max_pool2d

Maps = tuple[Float[Array, "b i j d"], ...]


def leaky_relu(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Darknet's activation: a tenth of what is negative."""
    return nn.leaky_relu(x, 0.1)


def sequence(
    parent: nn.Module, place: str, index: int = 0, norm: bool = True
) -> Callable[..., Float[Array, "b i j d"]]:
    """Convolutions with leaky ReLUs as entries of a Sequential of the reference.

    Args:
      parent: the module that they belong to, which has a `dtype`.
      place: the Sequential's name.
      index: of the first convolution in it; its norm and its activation follow.
      norm: whether they have a batch norm instead of a bias.

    Returns:
      A function of the map, of `train`, and of each convolution's (channels, kernel size, stride).
    """

    def apply(x: Array, train: bool, *convs: tuple[int, int, int]) -> Array:
        common: dict[str, Any] = {"dtype": parent.dtype, "parent": parent}
        for number, (features, size, stride) in enumerate(convs):
            at = index + number * (3 if norm else 2)
            name = f"{place}_{at}"
            x = Conv2d(features, size, stride, use_bias=not norm, name=name, **common)(x)
            if norm:
                x = BatchNorm(name=f"{place}_{at + 1}", **common)(x, train)
            x = leaky_relu(x)
        return x

    return apply


class ResidualBlock(nn.Module):
    """A 1x1 convolution that halves the channels and a 3x3 one, beside a shortcut."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        channels, common = x.shape[-1], {"act": leaky_relu, "dtype": self.dtype}
        y = ConvNormAct(channels // 2, **common, name="conv1")(x, train)
        return x + ConvNormAct(channels, 3, **common, name="conv2")(y, train)


class Stage(nn.Module):
    """A 3x3 convolution that halves the map, and residual blocks.

    Attributes:
      features: channels of the output.
      depth: residual blocks.
      remat: see `Darknet53`.
    """

    features: int
    depth: int
    remat: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        halve = ConvNormAct(self.features, 3, 2, act=leaky_relu, dtype=self.dtype, name="conv")
        x = halve(x, train)
        block = nn.remat(ResidualBlock, static_argnums=2) if self.remat else ResidualBlock
        for index in range(self.depth):
            x = block(self.dtype, name=f"res{index}")(x, train)
        return x


class Darknet53(nn.Module):
    """A 3x3 convolution, five residual stages and a linear layer.

    Attributes:
      widths: channels of the first convolution and of each stage.
      depths: residual blocks of each stage.
      remat: recompute each block in the backward pass to save memory.
      features_only: return the maps of strides 1, 2, 4, 8, 16 and 32.
    """

    num_classes: int = 1000
    widths: Sequence[int] = (32, 64, 128, 256, 512, 1024)
    depths: Sequence[int] = (1, 2, 8, 8, 4)
    remat: bool = False
    features_only: bool = False
    dtype: Any = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        return doubled(len(self.depths) + 1)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | Maps:
        stem = ConvNormAct(self.widths[0], 3, act=leaky_relu, dtype=self.dtype, name="conv1")
        maps = [stem(image, train)]
        for number, (width, depth) in enumerate(zip(self.widths[1:], self.depths, strict=True), 1):
            stage = Stage(width, depth, self.remat, self.dtype, name=f"conv_res_block{number}")
            maps.append(stage(maps[-1], train))
        if self.features_only:
            return tuple(maps)
        return Head(self.num_classes, dtype=self.dtype, name="fc")(global_average_pool(maps[-1]))


class Darknet(nn.Module):
    """A convolution, and stages of convolutions after a max pooling each, then a mean.

    Convolutions are 3x3 where they widen the map, else 1x1.

    Attributes:
      stem: channels, kernel size and stride of the first convolution.
      stages: channels of the convolutions of each stage.
      norm: whether convolutions have a batch norm instead of a bias.
      convolutional: whether the classifier is a 1x1 convolution in the reference.
      features_only: return the map of the first convolution and those of the stages.
    """

    num_classes: int = 1000
    stem: tuple[int, int, int] = (32, 3, 1)
    stages: Sequence[Sequence[int]] = ()
    norm: bool = True
    convolutional: bool = True
    features_only: bool = False
    dtype: Any = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        return doubled(len(self.stages) + 1, first=self.stem[2])

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | Maps:
        width, kernel_size, stride = self.stem
        check_size(image, stride * 2 ** len(self.stages) - stride + 1, "Darknet")
        stem = sequence(self, "features.stem", 0, self.norm)
        maps = [stem(image, train, (width, kernel_size, stride))]
        for number, widths in enumerate(self.stages):
            layers = sequence(self, f"features.layers_{number}", 1, self.norm)
            channels = (maps[-1].shape[-1], *widths)
            convs = [(new, 3 if new > old else 1, 1) for old, new in pairwise(channels)]
            maps.append(layers(max_pool2d(maps[-1], 2), train, *convs))
        if self.features_only:
            return tuple(maps)
        x = global_average_pool(maps[-1])
        if self.convolutional and self.num_classes:
            classify = Conv2d(self.num_classes, 1, dtype=self.dtype, name="classifier")
            return classify(x[:, None, None])[:, 0, 0]
        return Head(self.num_classes, dtype=self.dtype, name="classifier")(x)


def _plain(name: str, paper: str, **options: Any) -> Variant:
    return Variant(
        Darknet,
        options,
        f"holocron {name}",
        paper=paper,
        classifier=("classifier",),
        first="features.stem.0",
    )


VARIANTS = {
    "darknet53": Variant(
        Darknet53,
        {},
        "mmdet Darknet(depth=53) and a linear layer",
        (256, 256, 3),
        "Redmon and Farhadi 2018, https://arxiv.org/abs/1804.02767",
        classifier=("fc",),
        first="conv1.conv",
    ),
    "darknet19": _plain(
        "darknet19",
        "Redmon and Farhadi 2016, https://arxiv.org/abs/1612.08242",
        stages=(
            *((64,), (128, 64, 128), (256, 128, 256)),
            *((512, *(2 * (256, 512))), (1024, *(2 * (512, 1024)))),
        ),
    ),
    "darknet24": _plain(
        "darknet24",
        "Redmon et al. 2015, https://arxiv.org/abs/1506.02640",
        stem=(64, 7, 2),
        stages=((192,), (128, 256, 256, 512), (*(4 * (256, 512)), 512, 1024), 2 * (512, 1024)),
        norm=False,
        convolutional=False,
    ),
}
