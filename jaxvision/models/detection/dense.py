"""What RetinaNet and FCOS share: a pyramid on an encoder, and towers that see all of its levels."""

import math
from collections.abc import Sequence
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.fpn import FeaturePyramid
from jaxvision.layers.normalization import GroupNorm
from jaxvision.layers.pyramid import by_stride, required
from jaxvision.ops.forms import accumulable

_STRIDES = (8, 16, 32, 64, 128)
_small = nn.initializers.normal(0.01)


def pyramid(
    detector: Any, image: Float[Array, "b h w c"], train: bool
) -> tuple[Float[Array, "b _ _ d"], ...]:
    """Maps of strides 8 to 128 of a detector with `encoder`, `width`, `extra` and `dtype`.

    Those that the encoder lacks, mostly the last two, are made of its coarsest.
    """
    found = by_stride(detector.encoder, image, detector.encoder(image, train))
    made = [f"p{3 + index}" for index, stride in enumerate(_STRIDES) if stride > max(found)]
    maps = required(found, _STRIDES[: len(_STRIDES) - len(made)], type(detector).__name__)
    make = FeaturePyramid(
        detector.width, detector.extra, tuple(made), dtype=detector.dtype, name="backbone.fpn"
    )
    return make(maps, train)


class Tower(nn.Module):
    """3x3 convolutions with ReLU, and one 3x3 convolution for each output; all levels share them.

    Attributes:
      outputs: channels of each output, by name.
      depth: convolutions before them.
      width: their channels.
      groups: of a group norm after each; 0 is none.
      nested: whether a convolution with its norm is a Sequential in the reference.
      prior: of the first output, the sigmoid of what it starts at; 0 starts it at zero.
    """

    outputs: tuple[tuple[str, int], ...]
    depth: int = 4
    width: int = 256
    groups: int = 0
    nested: bool = False
    prior: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, levels: Sequence[Float[Array, "b _ _ d"]]) -> list[tuple[Array, ...]]:
        """Of each level its outputs, float32 [b, h, w, channels] at least."""
        common: dict[str, Any] = {"dtype": self.dtype, "kernel_init": _small}
        layers: list[Any] = []
        for index in range(self.depth):
            conv, norm = f"conv.{index}.0", f"conv.{index}.1"
            if not self.nested:  # one Sequential of convolutions, norms and activations
                conv, norm = f"conv.{3 * index}", f"conv.{3 * index + 1}"
            bias = not (self.groups and self.nested)
            layers.append(Conv2d(self.width, use_bias=bias, name=conv, **common))
            if self.groups:
                layers.append(GroupNorm(self.groups, dtype=self.dtype, name=norm))
            layers.append(nn.relu)
        start = -math.log((1 - self.prior) / self.prior) if self.prior else 0.0
        ends = [
            Conv2d(
                channels,
                bias_init=nn.initializers.constant(0.0 if index else start),
                name=name,
                **common,
            )
            for index, (name, channels) in enumerate(self.outputs)
        ]
        found = []
        for x in levels:
            for layer in layers:
                x = layer(x)
            found.append(tuple(accumulable(end(x)) for end in ends))
        return found


def flat(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b n d"]:
    """Places by rows, columns and anchors, `size` numbers each."""
    return x.reshape(x.shape[0], -1, size)
