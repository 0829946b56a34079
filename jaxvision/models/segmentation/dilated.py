"""Dilated VGG-16: Yu and Koltun, Multi-Scale Context Aggregation by Dilated Convolutions, 2016.

https://arxiv.org/abs/1511.07122. No package has it; the reference is
tests/parity/networks/dilated.py. As in the authors' networks the image is padded by reflection so
that convolutions without padding score each 8x8 block, and the context module pads its input with
33 zeros; here the scores are then enlarged bilinearly. Sides that are no multiple of 8 are padded
too, below and to the right, and the logits cut back. Weights of torchvision's `vgg16` initialise
all but the scores. The authors train front end and context module one after the other.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import unknown
from jaxvision.layers.convolution import Conv2d
from jaxvision.models.segmentation.fcn import vgg16_as_convolutions
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import max_pool2d
from jaxvision.ops.resize import resize
from jaxvision.state_dict import StateDict, renamed

# Channels, convolutions and dilation of VGG-16's stages. The first three are pooled; a pooling that
# is left out doubles the dilation of what follows.
_STAGES = ((64, 2, 1), (128, 2, 1), (256, 3, 1), (512, 3, 1), (512, 3, 2))
_POOLED = 3
_FC6_DILATION = 4
_MARGIN = 186  # what the convolutions without padding take from each side
# Table 1: dilations of the context module, whose last layer is 1x1, and its channels over C.
_DILATIONS = (1, 1, 2, 4, 8, 16, 1, 1)
_CONTEXT = {"basic": (1, 1, 1, 1, 1, 1, 1, 1), "large": (2, 2, 4, 8, 16, 32, 32, 1)}


def identity(channels: int) -> nn.initializers.Initializer:
    """Equations 4 and 5: layers that hand groups of feature maps on, with a little noise.

    Args:
      channels: C, how many maps go into the module and come out.
    """

    def initialise(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        rows, columns, inputs, outputs = shape
        share = channels / outputs
        kernel = jnp.zeros(shape, dtype)
        if (inputs, outputs) != (channels, channels):
            kernel += 0.01 * share * jax.random.normal(key, shape, dtype)
        group = jnp.arange(inputs)[:, None] * channels // inputs
        same = group == jnp.arange(outputs) * channels // outputs
        centre = (rows // 2, columns // 2)
        return kernel.at[centre].set(jnp.where(same, share, kernel[centre]))

    return initialise


class Context(nn.Module):
    """Seven 3x3 convolutions of growing dilation and a 1x1 one, from C maps to C maps.

    Attributes:
      form: "basic" or "large".
    """

    form: str = "basic"
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        channels = x.shape[-1]
        margin = sum(_DILATIONS[:-1])
        x = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
        last = len(_DILATIONS) - 1
        for index, (rate, factor) in enumerate(zip(_DILATIONS, _CONTEXT[self.form], strict=True)):
            x = Conv2d(
                factor * channels,
                1 if index == last else 3,
                padding=0,
                dilation=rate,
                dtype=self.dtype,
                kernel_init=identity(channels),
                name=str(index),
            )(x)
            x = x if index == last else nn.relu(x)
        return x


class DilatedVGG(nn.Module):
    """The front end, VGG-16 without its last two poolings, and the context module if wanted.

    Returns logits [b, h, w, num_classes], or with no classes the front end's last map.

    Attributes:
      context: "", "basic" or "large".
      width: what the channels of VGG-16's convolutions are multiplied by.
      hidden: channels of what were its linear layers.
    """

    num_classes: int = 21
    context: str = ""
    width: float = 1.0
    hidden: int = 4096
    dropout: float = 0.5
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w k"]:
        if self.context and self.context not in _CONTEXT:
            raise unknown("context module", self.context, _CONTEXT)
        height, width = image.shape[1:3]
        pads = [(_MARGIN, _MARGIN + -side % 8) for side in (height, width)]
        x = jnp.pad(image, ((0, 0), *pads, (0, 0)), mode="reflect")
        for stage, (channels, depth, rate) in enumerate(_STAGES, start=1):
            features = max(1, round(channels * self.width))
            for index in range(depth):
                x = self._conv(features, 3, rate, f"conv{stage}_{index}")(x)
                x = nn.relu(x)
            if stage <= _POOLED:
                x = max_pool2d(x, 2)
        for name, side, rate in (("fc6", 7, _FC6_DILATION), ("fc7", 1, 1)):
            x = nn.relu(self._conv(self.hidden, side, rate, name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        if not self.num_classes:
            return x
        x = self._conv(self.num_classes, 1, 1, "score")(x)
        if self.context:
            x = Context(self.context, self.dtype, name="context")(x)
        return resize(x, (8 * x.shape[1], 8 * x.shape[2]))[:, :height, :width]

    def _conv(self, features: int, size: int, rate: int, name: str) -> Conv2d:
        return Conv2d(features, size, padding=0, dilation=rate, dtype=self.dtype, name=name)


def from_vgg16(state: StateDict) -> StateDict:
    """torchvision's `vgg16` by our names; other files as they are."""
    if "features.0.weight" not in state or "classifier.0.weight" not in state:
        return state
    state = vgg16_as_convolutions(state)
    for stage, (_, depth, _) in enumerate(_STAGES, start=1):
        for index in range(depth):
            state = renamed(state, [(rf"^conv{stage}_{index + 1}\.", f"conv{stage}.{index}.")])
    return state


def _variant(context: str = "") -> Variant:
    layers = [f"context.{index}" for index in range(len(_DILATIONS))] if context else []
    return Variant(
        DilatedVGG,
        {"context": context},
        "tests/parity/networks/dilated.py DilatedVGG",
        (224, 224, 3),
        "Yu and Koltun 2016, https://arxiv.org/abs/1511.07122",
        classifier=("score", *layers),
        first="conv1.0",
        convert=from_vgg16,
    )


VARIANTS = {
    "dilated_vgg16": _variant(),
    "dilated_vgg16_context": _variant("basic"),
    "dilated_vgg16_context_large": _variant("large"),
}
