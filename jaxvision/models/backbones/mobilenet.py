"""MobileNets: networks of depthwise separable convolutions for phones.

V1: Howard et al., MobileNets: Efficient CNNs for Mobile Vision Applications, 2017,
https://arxiv.org/abs/1704.04861. References: `timm` `mobilenetv1_100`, with ReLU6 as in the
authors' code, and `pytorchcv` `mobilenet_w1` ..., with the ReLU of the paper. V2: Sandler et al.,
MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018, https://arxiv.org/abs/1801.04381.
Reference: `torchvision.models.mobilenet_v2`; timm's names of `mobilenetv2_100` are read and written
too.

Deviation: as in the references strided convolutions are padded alike on all sides, and not at the
bottom and the right alone as in TensorFlow.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head
from jaxvision.layers.normalization import BatchNorm
from jaxvision.layers.pyramid import doubled
from jaxvision.models.variant import Form, Variant
from jaxvision.ops.pooling import global_average_pool
from jaxvision.state_dict import StateDict

Activation = Callable[[Array], Array]


def scaled(width: float) -> int:
    """A multiple of 8 near the width, not more than a tenth below it."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


class SeparableConv(nn.Module):
    """A depthwise 3x3 convolution and a 1x1 one, both with batch norm and an activation.

    Attributes:
      stride: of the depthwise one.
      act: the activation.
    """

    features: int
    stride: int = 1
    act: Activation = nn.relu6
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        conv = partial(Conv2d, use_bias=False, dtype=self.dtype)
        width = x.shape[-1]
        x = conv(width, 3, self.stride, groups=width, name="conv_dw")(x)
        x = self.act(BatchNorm(dtype=self.dtype, name="bn1")(x, train))
        x = conv(self.features, 1, name="conv_pw")(x)
        return self.act(BatchNorm(dtype=self.dtype, name="bn2")(x, train))


class MobileNetV1(nn.Module):
    """A strided convolution, separable ones in five stages, a mean and a linear layer.

    Attributes:
      depths: convolutions of the stages; the first of each but the first stage is strided.
      width_mult: by how much all layers are wider.
      act: the activation.
      remat: recompute each separable convolution in the backward pass to save memory.
      features_only: return the maps of strides 2, 4, 8, 16 and 32.
    """

    num_classes: int = 1000
    depths: Sequence[int] = (1, 2, 2, 6, 2)
    width_mult: float = 1.0
    act: Activation = nn.relu6
    dropout: float = 0.0
    remat: bool = False
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        return doubled(len(self.depths), first=2)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        width = scaled(32 * self.width_mult)
        x = Conv2d(width, 3, 2, use_bias=False, dtype=self.dtype, name="conv_stem")(image)
        x = self.act(BatchNorm(dtype=self.dtype, name="bn1")(x, train))
        conv = nn.remat(SeparableConv, static_argnums=(2,)) if self.remat else SeparableConv
        features = []
        for stage, depth in enumerate(self.depths):
            width = scaled(64 * 2**stage * self.width_mult)
            for index in range(depth):
                stride = 2 if stage and index == 0 else 1
                made = conv(width, stride, self.act, self.dtype, name=f"blocks_{stage}_{index}")
                x = made(x, train)
            features.append(x)
        if self.features_only:
            return tuple(features)
        x = nn.Dropout(self.dropout, deterministic=not train)(global_average_pool(x))
        return Head(self.num_classes, dtype=self.dtype, name="classifier")(x)


class InvertedResidual(nn.Module):
    """A 1x1 convolution that widens, a depthwise 3x3, a 1x1 that narrows; no activation after it.

    Attributes:
      expansion: by how much the first widens; at 1 there is none.
      stride: of the second; at 1, and with as many channels as before, there is a shortcut.
      dilation: of the second.
    """

    features: int
    expansion: int = 6
    stride: int = 1
    dilation: int = 1
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        conv = partial(Conv2d, use_bias=False, dtype=self.dtype)
        norm = partial(BatchNorm, dtype=self.dtype)
        width, y, index = x.shape[-1] * self.expansion, x, 0
        if self.expansion > 1:
            y = nn.relu6(norm(name="conv_0_1")(conv(width, 1, name="conv_0_0")(y), train))
            index = 1
        spatial: dict[str, Any] = {
            "stride": self.stride,
            "dilation": self.dilation,
            "groups": width,
        }
        y = conv(width, 3, **spatial, name=f"conv_{index}_0")(y)
        y = nn.relu6(norm(name=f"conv_{index}_1")(y, train))
        y = conv(self.features, 1, name=f"conv_{index + 1}")(y)
        y = norm(name=f"conv_{index + 2}")(y, train)
        return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
    """A strided convolution, inverted residuals, a 1x1 convolution, a mean and a linear layer.

    Attributes:
      stages: table 2 of the paper, of each stage expansion, channels, blocks and stride.
      width_mult: by how much all layers are wider; the last convolution is never narrower.
      output_stride: 32, or 16 or 8: later stages are then dilated instead of strided, as in
        segmentation_models_pytorch.
      remat: recompute each block in the backward pass to save memory.
      features_only: return the maps of strides 2, 4, 8, 16 and 32, before the last convolution.
      last_conv: whether the last of them is after that convolution, as in
        segmentation_models_pytorch.
    """

    num_classes: int = 1000
    stages: Sequence[tuple[int, int, int, int]] = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    width_mult: float = 1.0
    output_stride: int = 32
    dropout: float = 0.2
    remat: bool = False
    features_only: bool = False
    last_conv: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        halvings = sum(stride > 1 for *_, stride in self.stages)
        return doubled(1 + halvings, first=2, last=self.output_stride)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        def conv(x: Array, width: float, kernel: int, stride: int, index: int) -> Array:
            made = Conv2d(
                scaled(width),
                kernel,
                stride,
                use_bias=False,
                dtype=self.dtype,
                name=f"features_{index}_0",
            )
            norm = BatchNorm(dtype=self.dtype, name=f"features_{index}_1")
            return nn.relu6(norm(made(x), train))

        x, index, features = conv(image, 32 * self.width_mult, 3, 2, 0), 1, []
        reached, dilation = 2, 1
        block = nn.remat(InvertedResidual, static_argnums=(2,)) if self.remat else InvertedResidual
        for expansion, channels, depth, stride in self.stages:
            if stride > 1:
                features.append(x)
            if reached * stride > self.output_stride:
                dilation, stride = dilation * stride, 1
            reached *= stride
            for position in range(depth):
                x = block(
                    scaled(channels * self.width_mult),
                    expansion,
                    stride if position == 0 else 1,
                    dilation,
                    self.dtype,
                    name=f"features_{index}",
                )(x, train)
                index += 1
        if self.features_only and not self.last_conv:
            return (*features, x)
        x = conv(x, 1280 * max(1.0, self.width_mult), 1, 1, index)
        if self.features_only:
            return (*features, x)
        x = nn.Dropout(self.dropout, deterministic=not train)(global_average_pool(x))
        return Head(self.num_classes, dtype=self.dtype, name="classifier_1")(x)


# pytorchcv's names by timm's, outside of blocks and inside; blocks count from 1 and from 0.
_OUTSIDE = {
    "conv_stem": "features.init_block.conv",
    "bn1": "features.init_block.bn",
    "classifier": "output",
}
_INSIDE = {
    "conv_dw": "dw_conv.conv",
    "bn1": "dw_conv.bn",
    "conv_pw": "pw_conv.conv",
    "bn2": "pw_conv.bn",
}
_PYTORCHCV = _OUTSIDE | {
    f"blocks.{stage}.{unit}.{timm}": f"features.stage{stage + 1}.unit{unit + 1}.{theirs}"
    for stage, unit in itertools.product(range(5), range(6))
    for timm, theirs in _INSIDE.items()
}


def _of_v2(depths: Sequence[int]) -> dict[str, str]:
    """timm's names of V2's layers by torchvision's."""
    names = {"features.0.0": "conv_stem", "features.0.1": "bn1"}
    index = 1
    first = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
    others = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2"}
    others |= {"2": "conv_pwl", "3": "bn3"}
    for stage, depth in enumerate(depths):
        for unit in range(depth):
            for layer, theirs in (others if stage else first).items():
                names[f"features.{index}.conv.{layer}"] = f"blocks.{stage}.{unit}.{theirs}"
            index += 1
    last = {f"features.{index}.0": "conv_head", f"features.{index}.1": "bn2"}
    return names | last | {"classifier.1": "classifier"}


_TIMM_V2 = _of_v2([depth for _, _, depth, _ in MobileNetV2.stages])


def _with_layers(state: StateDict, names: Mapping[str, str], back: bool = False) -> StateDict:
    """A state_dict with the layers' names replaced, or with `back` by those that they replace."""
    if back:
        names = {theirs: ours for ours, theirs in names.items()}
    split = ((name.rpartition("."), value) for name, value in state.items())
    return {f"{names.get(layer, layer)}.{leaf}": value for (layer, _, leaf), value in split}


def _from_timm_v2(state: StateDict) -> StateDict:
    return _with_layers(state, _TIMM_V2, back=True) if "conv_stem.weight" in state else state


_HOWARD = "Howard et al. 2017, https://arxiv.org/abs/1704.04861"

VARIANTS = {
    "mobilenetv1_100": Variant(
        MobileNetV1,
        {},
        "timm mobilenetv1_100",
        paper=_HOWARD,
        classifier=("classifier",),
        first="conv_stem",
    ),
    **{
        f"mobilenet_{name}": Variant(
            MobileNetV1,
            {"width_mult": width, "act": nn.relu},
            f"pytorchcv mobilenet_{name}",
            paper=_HOWARD,
            classifier=("classifier",),
            first="conv_stem",
            convert=partial(_with_layers, names=_PYTORCHCV, back=True),
            export=partial(_with_layers, names=_PYTORCHCV),
        )
        for name, width in {"w1": 1.0, "w3d4": 0.75, "wd2": 0.5, "wd4": 0.25}.items()
    },
    "mobilenet_v2": Variant(
        MobileNetV2,
        {},
        "torchvision mobilenet_v2",
        paper="Sandler et al. 2018, https://arxiv.org/abs/1801.04381",
        classifier=("classifier.1",),
        first="features.0.0",
        convert=_from_timm_v2,
        forms=(Form("timm", "mobilenetv2_100", partial(_with_layers, names=_TIMM_V2)),),
    ),
}
