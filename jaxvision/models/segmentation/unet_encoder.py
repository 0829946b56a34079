"""U-Net's decoder on any encoder: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597.

Reference: segmentation_models_pytorch's `Unet`: nearest upsampling instead of the paper's
transposed convolutions, batch normalisation, and same padding.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.conv_norm import conv_norm_relu
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.positions import Grid
from jaxvision.layers.pyramid import by_stride
from jaxvision.models.variant import Variant
from jaxvision.ops.resize import resize
from jaxvision.state_dict import Shapes, StateDict


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, each with batch norm and ReLU, named `first` and `second`."""

    features: int
    first: str = "conv1"
    second: str = "conv2"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        for name in (self.first, self.second):
            x = conv_norm_relu(self, self.features, 3, f"{name}.0", f"{name}.1", x, train)
        return x


class UNetDecoder(nn.Module):
    """Doubles the deepest map up to the image's size, joining the encoder's maps on the way.

    Attributes:
      widths: channels after each doubling.
      center: whether two convolutions follow the deepest map, as the reference has it for VGG.
    """

    widths: tuple[int, ...] = (256, 128, 64, 32, 16)
    center: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(
        self, levels: dict[int, Float[Array, "b _ _ _"]], size: tuple[int, int], train: bool
    ) -> Float[Array, "b h w d"]:
        stride = max(levels)
        x = levels[stride]
        if self.center:
            x = DoubleConv(x.shape[-1], "0", "1", dtype=self.dtype, name="center")(x, train)
        for index, width in enumerate(self.widths):
            stride //= 2
            if stride in levels:
                skip = levels[stride]
                x = jnp.concatenate([resize(x, skip.shape[1:3], "nearest"), skip], axis=-1)
            else:
                x = resize(x, (-(-size[0] // stride), -(-size[1] // stride)), "nearest")
            x = DoubleConv(width, dtype=self.dtype, name=f"blocks_{index}")(x, train)
        return x


class EncoderUNet(nn.Module):
    """Returns logits [b, h, w, num_classes], or with no classes the decoder's last map.

    Attributes:
      encoder: gives feature maps of falling size.
      widths: channels of the decoder after each doubling; the first of them are used by encoders
        of a stride below 32.
      center: see `UNetDecoder`.
    """

    num_classes: int = 21
    encoder: Any = None
    widths: tuple[int, ...] = (256, 128, 64, 32, 16)
    center: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w k"]:
        levels = by_stride(self.encoder, image, self.encoder(image, train))
        doublings = max(levels).bit_length() - 1
        if len(levels) < 3 or doublings > len(self.widths):
            raise UserError(
                f"U-Net needs an encoder with maps of at least three strides up to "
                f"{2 ** len(self.widths)}; "
                f"this one has strides {', '.join(map(str, levels))}."
            )
        widths = self.widths[:doublings]
        levels.pop(1, None)  # a map of the image's size has no skip connection in the reference
        x = UNetDecoder(widths, self.center, self.dtype, name="decoder")(
            levels, (image.shape[1], image.shape[2]), train
        )
        if not self.num_classes:
            return x
        return Conv2d(self.num_classes, 3, dtype=self.dtype, name="segmentation_head_0")(x)


# A layer that only the reference's file has: what gives our network the layer as well.
_REMEDIES = {
    "decoder.center.0.0.weight": "center=True",
    "encoder.features.18.0.weight": 'encoder_options={"last_conv": True}',
}


def _check(state: StateDict, shapes: Shapes, grid: Grid | None) -> StateDict:
    """The state_dict as it is.

    Raises:
      UserError: it has a layer that an option gives the network.
    """
    for name, remedy in _REMEDIES.items():
        if name in state and name not in shapes:
            raise UserError(
                f"These weights of segmentation_models_pytorch have {name}; they fit a network "
                f"with {remedy}."
            )
    return state


def _variant(encoder: str, **options: Any) -> Variant:
    return Variant(
        EncoderUNet,
        {"encoder": encoder, "encoder_options": {"smp_maps": True}, **options},
        f"segmentation_models_pytorch Unet('{encoder}')",
        paper="Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597",
        classifier=("segmentation_head.0",),
        first="encoder.features.0" if encoder.startswith("vgg") else "encoder.conv1",
        resize=_check,
    )


VARIANTS = {
    **{f"unet_{e}": _variant(e) for e in ("resnet18", "resnet34", "resnet50", "resnet101")},
    "unet_vgg16_bn": _variant("vgg16_bn", center=True),
}
