"""SegNet: Badrinarayanan et al., A Deep Convolutional Encoder-Decoder Architecture, 2015.

https://arxiv.org/abs/1511.00561. Reference: `pytorchcv.models.segnet.segnet_cityscapes`. As there,
the scores are a plain 3x3 convolution. Sides need not be multiples of 32: each unpooling makes a
map of the size that was pooled. `segnet_small` is a quarter as wide.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.conv_norm import ConvNormAct
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.images import check_size
from jaxvision.models.variant import Variant
from jaxvision.ops.unpooling import max_pool2d_with_switches, max_unpool2d_by_switches


class Stage(nn.Module):
    """3x3 convolutions with batch normalisation and ReLU.

    Attributes:
      features: channels of each convolution.
      first: the number in the first one's name.
    """

    features: tuple[int, ...]
    first: int = 1
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        for number, features in enumerate(self.features, start=self.first):
            unit = ConvNormAct(features, 3, use_bias=True, dtype=self.dtype, name=f"unit{number}")
            x = unit(x, train)
        return x


class SegNet(nn.Module):
    """The encoder is VGG-16's; the decoder, its mirror, unpools to where the maxima were.

    Returns logits [b, h, w, num_classes], or the last map with no classes.

    Attributes:
      channels: of each stage of the encoder.
      depths: how many convolutions each has.
      width: what all channels are multiplied by.
    """

    num_classes: int = 19
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    width: float = 1.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w k"]:
        check_size(image, 2 ** len(self.channels), "SegNet")
        channels = [max(1, round(c * self.width)) for c in self.channels]
        x, pooled = image, []
        for number, (features, depth) in enumerate(zip(channels, self.depths, strict=True), 1):
            stage = Stage((features,) * depth, dtype=self.dtype, name=f"down_stage{number}")
            x = stage(x, train)
            size = x.shape[1:3]
            x, switches = max_pool2d_with_switches(x)
            pooled.append((switches, size))
        # Each stage's last convolution makes the channels of the stage below.
        below = [channels[0], *channels[:-1]]
        for level in reversed(range(len(channels))):
            x = max_unpool2d_by_switches(x, *pooled[level])
            widths = [channels[level]] * (self.depths[level] - 1) + [below[level]]
            if level == 0:
                widths = widths[1:]  # its last is the layer of the scores
            number = len(channels) - level
            x = Stage(tuple(widths), 2, self.dtype, name=f"up_stage{number}")(x, train)
        if not self.num_classes:
            return x
        return Conv2d(self.num_classes, 3, dtype=self.dtype, name="head")(x)


def _segnet(reference: str, **options: float) -> Variant:
    return Variant(
        SegNet,
        options,
        f"pytorchcv segnet_cityscapes{reference}",
        (360, 480, 3),
        "Badrinarayanan et al. 2015, https://arxiv.org/abs/1511.00561",
        classifier=("head",),
        first="down_stage1.unit1.conv",
    )


VARIANTS = {"segnet": _segnet(""), "segnet_small": _segnet(", a quarter as wide", width=0.25)}
