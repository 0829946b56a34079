"""EfficientNet: Tan and Le, EfficientNet: Rethinking Model Scaling for CNNs, 2019.

https://arxiv.org/abs/1905.11946. References: timm's `tf_efficientnet_b0` ..., which compute as the
authors' TensorFlow code, and `efficientnet_b0` ..., whose strided convolutions are padded alike on
all sides. torchvision's files of B0 to B4, which are the same networks, are read too.
"""

import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.blocks import DropPath
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head
from jaxvision.layers.normalization import BatchNorm
from jaxvision.layers.pyramid import doubled
from jaxvision.layers.squeeze_excite import SqueezeExcite
from jaxvision.models.backbones.mobilenet import scaled
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import global_average_pool
from jaxvision.ops.windows import Padding, same_padding
from jaxvision.state_dict import StateDict

# A row of the paper's table 1: kernel, expansion, channels, blocks, stride of the first of them.
Stage = tuple[int, int, int, int, int]


def _padding(x: Array, kernel: int, stride: int, tensorflow: bool) -> Padding | None:
    return same_padding(x.shape[1:3], kernel, stride) if tensorflow else None


class MBConv(nn.Module):
    """A 1x1 convolution that widens, a depthwise one, squeeze-and-excitation, a 1x1 that narrows.

    Attributes:
      kernel: size of the depthwise convolution.
      expansion: by how much the first widens; at 1 there is none.
      stride: of the depthwise one; at 1, and with as many channels as before, there is a shortcut.
      tensorflow: see `EfficientNet`.
      drop_path: the probability that a sample skips what is added to the shortcut.
    """

    features: int
    kernel: int = 3
    expansion: int = 6
    stride: int = 1
    tensorflow: bool = False
    drop_path: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        conv = partial(Conv2d, use_bias=False, dtype=self.dtype)
        norm = _norm(self)
        width, y, index, last = x.shape[-1] * self.expansion, x, 1, "conv_pw"
        if self.expansion > 1:
            y = nn.silu(norm(name="bn1")(conv(width, 1, name="conv_pw")(y), train))
            index, last = 2, "conv_pwl"
        padding = _padding(y, self.kernel, self.stride, self.tensorflow)
        y = conv(width, self.kernel, self.stride, padding, groups=width, name="conv_dw")(y)
        y = nn.silu(norm(name=f"bn{index}")(y, train))
        y = SqueezeExcite(
            x.shape[-1] // 4,
            act=nn.silu,
            names=("conv_reduce", "conv_expand"),
            dtype=self.dtype,
            name="se",
        )(y)
        y = norm(name=f"bn{index + 1}")(conv(self.features, 1, name=last)(y), train)
        if self.stride > 1 or x.shape != y.shape:
            return y
        return x + DropPath(self.drop_path)(y, train)


class EfficientNet(nn.Module):
    """A strided convolution, stages of blocks, a 1x1 convolution, a mean and a linear layer.

    Attributes:
      stages: of B0.
      width_mult: by how much all layers are wider.
      depth_mult: by how much stages have more blocks.
      tensorflow: whether strided convolutions are padded as there, rather at the bottom and the
        right, and norms have its epsilon of 1e-3.
      drop_path: stochastic depth: of block i of n it is i/n of this.
      remat: recompute each block in the backward pass to save memory.
      features_only: return the maps of strides 2, 4, 8, 16 and 32, before the last convolution.
    """

    num_classes: int = 1000
    stages: Sequence[Stage] = (
        (3, 1, 16, 1, 1),
        (3, 6, 24, 2, 2),
        (5, 6, 40, 2, 2),
        (3, 6, 80, 3, 2),
        (5, 6, 112, 3, 1),
        (5, 6, 192, 4, 2),
        (3, 6, 320, 1, 1),
    )
    width_mult: float = 1.0
    depth_mult: float = 1.0
    tensorflow: bool = False
    dropout: float = 0.2
    drop_path: float = 0.2
    remat: bool = False
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        return doubled(1 + sum(stride > 1 for *_, stride in self.stages), first=2)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        conv, norm = partial(Conv2d, use_bias=False, dtype=self.dtype), _norm(self)
        width, padding = scaled(32 * self.width_mult), _padding(image, 3, 2, self.tensorflow)
        x = conv(width, 3, 2, padding, name="conv_stem")(image)
        x, features = nn.silu(norm(name="bn1")(x, train)), []
        block = nn.remat(MBConv, static_argnums=(2,)) if self.remat else MBConv
        depths = [math.ceil(depth * self.depth_mult) for *_, depth, _ in self.stages]
        done = 0
        for stage, (kernel, expansion, channels, _, stride) in enumerate(self.stages):
            if stride > 1:
                features.append(x)
            for index in range(depths[stage]):
                x = block(
                    scaled(channels * self.width_mult),
                    kernel,
                    expansion,
                    1 if index else stride,
                    self.tensorflow,
                    self.drop_path * done / sum(depths),
                    self.dtype,
                    name=f"blocks_{stage}_{index}",
                )(x, train)
                done += 1
        if self.features_only:
            return (*features, x)
        x = conv(scaled(1280 * self.width_mult), 1, name="conv_head")(x)
        x = global_average_pool(nn.silu(norm(name="bn2")(x, train)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Head(self.num_classes, dtype=self.dtype, name="classifier")(x)


def _norm(network: MBConv | EfficientNet) -> Any:
    epsilon = 1e-3 if network.tensorflow else 1e-5
    return partial(BatchNorm, epsilon=epsilon, dtype=network.dtype)


# torchvision's parts of a block, by number: a convolution and its norm, or "se".
_PARTS = (("conv_pw", "bn1"), ("conv_dw", "bn2"), "se", ("conv_pwl", "bn3"))
_FIRST_PARTS = (("conv_dw", "bn1"), "se", ("conv_pw", "bn2"))  # of those that do not widen
_SQUEEZE = {"fc1": "conv_reduce", "fc2": "conv_expand"}


def _from_torchvision(state: StateDict) -> StateDict:
    """timm's names of torchvision's networks, of which the first stage alone does not widen."""
    if "features.0.0.weight" not in state:
        return state
    last = max(int(name.split(".")[1]) for name in state if name.startswith("features."))
    ends = {0: ("conv_stem", "bn1"), last: ("conv_head", "bn2")}

    def ours(name: str) -> str:
        if found := re.fullmatch(r"features\.(\d+)\.([01])\.(\w+)", name):
            return f"{ends[int(found[1])][int(found[2])]}.{found[3]}"
        found = re.fullmatch(r"features\.(\d+)\.(\d+)\.block\.(\d+)\.(\w+)\.(\w+)", name)
        if not found:
            return name.replace("classifier.1.", "classifier.")
        stage, block, part, layer, leaf = found.groups()
        names = (_FIRST_PARTS if stage == "1" else _PARTS)[int(part)]
        inside = f"se.{_SQUEEZE[layer]}" if names == "se" else names[int(layer)]
        return f"blocks.{int(stage) - 1}.{block}.{inside}.{leaf}"

    return {ours(name): value for name, value in state.items()}


# Of B0 to B7: how much wider and deeper, side of the image, dropout.
_SCALES = (
    (1.0, 1.0, 224, 0.2),
    (1.0, 1.1, 240, 0.2),
    (1.1, 1.2, 260, 0.3),
    (1.2, 1.4, 300, 0.3),
    (1.4, 1.8, 380, 0.4),
    (1.6, 2.2, 456, 0.4),
    (1.8, 2.6, 528, 0.5),
    (2.0, 3.1, 600, 0.5),
)
VARIANTS = {
    f"{prefix}efficientnet_b{number}": Variant(
        EfficientNet,
        {"width_mult": wide, "depth_mult": deep, "tensorflow": bool(prefix), "dropout": dropout},
        f"timm {prefix}efficientnet_b{number}",
        (side, side, 3),
        "Tan and Le 2019, https://arxiv.org/abs/1905.11946",
        classifier=("classifier",),
        first="conv_stem",
        convert=dict if prefix else _from_torchvision,
    )
    for prefix in ("", "tf_")
    for number, (wide, deep, side, dropout) in enumerate(_SCALES)
}
