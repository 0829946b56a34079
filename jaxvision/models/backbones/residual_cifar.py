"""Residual networks of 32x32 images whose shortcuts are projected where the shape changes.

ResNet: He et al., Deep Residual Learning for Image Recognition, 2015,
https://arxiv.org/abs/1512.03385. PreResNet, with batch norm and ReLU before each convolution: He
et al., Identity Mappings in Deep Residual Networks, 2016, https://arxiv.org/abs/1603.05027. Wide
ResNet: Zagoruyko and Komodakis, Wide Residual Networks, 2016, https://arxiv.org/abs/1605.07146.
ResNeXt: Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2016,
https://arxiv.org/abs/1611.05431. SE-ResNet: Hu et al., Squeeze-and-Excitation Networks, 2017,
https://arxiv.org/abs/1709.01507.

References: `pytorchcv` `resnet20_cifar10`, `wrn28_10_cifar10` .... As there, a bottleneck's stride
is at its 3x3 convolution. `resnet_cifar` has the shortcuts without weights.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.conv_norm import ConvNormAct
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head
from jaxvision.layers.normalization import BatchNorm
from jaxvision.layers.pyramid import doubled
from jaxvision.layers.squeeze_excite import SqueezeExcite
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import global_average_pool
from jaxvision.state_dict import StateDict, renamed


class _Conv(NamedTuple):
    """A convolution of a block."""

    features: int
    kernel: int
    stride: int = 1
    groups: int = 1


class PostActivationUnit(nn.Module):
    """Convolutions, each with batch norm and all but the last with a ReLU, beside a shortcut.

    Attributes:
      convs: the convolutions.
      squeeze: by how much a squeeze-and-excitation narrows the channels; 0 is none.
    """

    convs: tuple[_Conv, ...]
    squeeze: int = 0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        y, out = x, self.convs[-1].features
        for index, conv in enumerate(self.convs, start=1):
            y = ConvNormAct(
                conv.features,
                conv.kernel,
                conv.stride,
                groups=conv.groups,
                act=nn.relu if index < len(self.convs) else None,
                dtype=self.dtype,
                name=f"body.conv{index}",
            )(y, train)
        if self.squeeze:
            y = SqueezeExcite(out // self.squeeze, dtype=self.dtype, name="se")(y)
        if x.shape != y.shape:
            stride = max(conv.stride for conv in self.convs)
            project = ConvNormAct(out, 1, stride, act=None, dtype=self.dtype, name="identity_conv")
            x = project(x, train)
        return nn.relu(x + y)


class PreActivationUnit(nn.Module):
    """Convolutions, each after batch norm and a ReLU, beside a shortcut.

    Attributes:
      convs: the convolutions.
      dropout: before the last of them.
    """

    convs: tuple[_Conv, ...]
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        y, preactivated = x, x
        for index, conv in enumerate(self.convs, start=1):
            norm = BatchNorm(dtype=self.dtype, name=f"body.conv{index}.bn")
            y = nn.relu(norm(y, train))
            if index == 1:
                preactivated = y
            if index == len(self.convs):
                y = nn.Dropout(self.dropout, deterministic=not train)(y)
            y = Conv2d(
                conv.features,
                conv.kernel,
                conv.stride,
                groups=conv.groups,
                use_bias=False,
                dtype=self.dtype,
                name=f"body.conv{index}.conv",
            )(y)
        if x.shape != y.shape:
            stride = max(conv.stride for conv in self.convs)
            x = Conv2d(
                y.shape[-1], 1, stride, use_bias=False, dtype=self.dtype, name="identity_conv"
            )(preactivated)
        return x + y


class ResidualCifar(nn.Module):
    """A 3x3 convolution, three stages of units, a mean and a linear layer.

    Attributes:
      depth: units of a stage.
      widths: channels of the stages.
      stem: channels of the first convolution.
      bottleneck: whether a unit is 1x1, 3x3, 1x1 in place of two 3x3 convolutions.
      groups: of a bottleneck's 3x3 convolution.
      group_width: channels of one group when a quarter of the stage's width is 64.
      squeeze: see `PostActivationUnit`.
      pre_activation: whether batch norm and ReLU come before the convolutions.
      dropout: inside of pre-activated units, as in Wide ResNet; otherwise before the linear layer.
      remat: recompute each unit in the backward pass to save memory.
      features_only: return the maps of the three stages, of strides 1, 2 and 4.
    """

    num_classes: int = 10
    depth: int = 3
    widths: Sequence[int] = (16, 32, 64)
    stem: int = 16
    bottleneck: bool = False
    groups: int = 1
    group_width: int = 64
    squeeze: int = 0
    pre_activation: bool = False
    dropout: float = 0.0
    remat: bool = False
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        return doubled(len(self.widths))

    def _convs(self, width: int, stride: int) -> tuple[_Conv, ...]:
        if not self.bottleneck:
            return _Conv(width, 3, stride), _Conv(width, 3)
        inner = width // 4 * self.group_width // 64 * self.groups
        return _Conv(inner, 1), _Conv(inner, 3, stride, self.groups), _Conv(width, 1)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        name = "features.init_block"
        if self.pre_activation:
            x = Conv2d(self.stem, 3, use_bias=False, dtype=self.dtype, name=name)(image)
        else:
            x = ConvNormAct(self.stem, 3, dtype=self.dtype, name=name)(image, train)
        unit: type[nn.Module] = PreActivationUnit if self.pre_activation else PostActivationUnit
        unit = nn.remat(unit, static_argnums=(2,)) if self.remat else unit
        special = self.dropout if self.pre_activation else self.squeeze
        features = []
        for stage, width in enumerate(self.widths, start=1):
            for index in range(1, self.depth + 1):
                convs = self._convs(width, 2 if stage > 1 and index == 1 else 1)
                name = f"features.stage{stage}.unit{index}"
                x = unit(convs, special, self.dtype, name=name)(x, train)
            features.append(x)
        if self.pre_activation:
            norm = BatchNorm(dtype=self.dtype, name="features.post_activ.bn")
            x = features[-1] = nn.relu(norm(x, train))
        if self.features_only:
            return tuple(features)
        x = global_average_pool(x)
        if not self.pre_activation:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Head(self.num_classes, dtype=self.dtype, name="output")(x)


def _convert(state: StateDict) -> StateDict:
    return renamed(state, [(r"\.se\.conv([12])\.", r".se.fc\1.")])


def _export(state: StateDict) -> StateDict:
    return renamed(state, [(r"\.se\.fc([12])\.", r".se.conv\1.")])


def _variant(name: str, paper: str, **options: object) -> Variant:
    first = "features.init_block" + ("" if options.get("pre_activation") else ".conv")
    return Variant(
        ResidualCifar,
        options,
        f"pytorchcv {name}",
        (32, 32, 3),
        paper,
        classifier=("output",),
        first=first,
        convert=_convert,
        export=_export,
    )


_HE = "He et al. 2015, https://arxiv.org/abs/1512.03385"
_HE_2016 = "He et al. 2016, https://arxiv.org/abs/1603.05027"
_ZAGORUYKO = "Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146"
_XIE = "Xie et al. 2016, https://arxiv.org/abs/1611.05431"
_HU = "Hu et al. 2017, https://arxiv.org/abs/1709.01507"
_FAMILIES: tuple[tuple[str, str, dict], ...] = (
    ("resnet", _HE, {}),
    ("preresnet", _HE_2016, {"pre_activation": True}),
    ("seresnet", _HU, {"squeeze": 16}),
)
_BOTTLENECK = {"bottleneck": True, "widths": (64, 128, 256)}

VARIANTS = {}
for _family, _paper, _options in _FAMILIES:
    for _depth in (20, 56, 110):
        _name = f"{_family}{_depth}_cifar10"
        VARIANTS[_name] = _variant(_name, _paper, depth=(_depth - 2) // 6, **_options)
    _name = f"{_family}164bn_cifar10"
    VARIANTS[_name] = _variant(_name, _paper, depth=18, **_BOTTLENECK, **_options)
for _depth, _wider in ((16, 10), (28, 10), (40, 8)):
    _name = f"wrn{_depth}_{_wider}_cifar10"
    VARIANTS[_name] = _variant(
        _name,
        _ZAGORUYKO,
        depth=(_depth - 4) // 6,
        widths=(16 * _wider, 32 * _wider, 64 * _wider),
        pre_activation=True,
    )
for _depth, _groups, _width in ((20, 16, 4), (20, 32, 4), (29, 32, 4), (29, 16, 64)):
    _name = f"resnext{_depth}_{_groups}x{_width}d_cifar10"
    VARIANTS[_name] = _variant(
        _name,
        _XIE,
        depth=(_depth - 2) // 9,
        widths=(256, 512, 1024),
        stem=64,
        bottleneck=True,
        groups=_groups,
        group_width=_width,
    )
