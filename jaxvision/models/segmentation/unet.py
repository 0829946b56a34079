"""U-Net: Ronneberger et al., Convolutional Networks for Biomedical Image Segmentation, 2015.

https://arxiv.org/abs/1505.04597. Reference: `unet.UNet` (fepegar/unet, PyPI `unet`), in the valid
form of the paper (`padding=0`) and the same-padding form with batch normalisation.
"""

import re
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d, ConvTranspose2d
from jaxvision.layers.images import center_crop, pad_to_multiple
from jaxvision.layers.normalization import BatchNorm
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import max_pool2d
from jaxvision.state_dict import StateDict


class ConvBlock(nn.Module):
    """Convolution, optional batch normalisation, optional ReLU.

    Attributes:
      padding: zeros on all sides.
      normalise: whether there is batch normalisation, and then no bias.
      activate: whether there is a ReLU.
    """

    features: int
    kernel_size: int = 3
    padding: int = 1
    normalise: bool = True
    activate: bool = True
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        x = Conv2d(
            self.features,
            self.kernel_size,
            padding=self.padding,
            use_bias=not self.normalise,
            dtype=self.dtype,
            name="conv_layer",
        )(x)
        if self.normalise:
            x = BatchNorm(dtype=self.dtype, name="norm_layer")(x, train)
        return nn.relu(x) if self.activate else x


class EncodingBlock(nn.Module):
    """Two 3x3 convolutions; the very first of the network is not normalised in the reference.

    Attributes:
      form: padding and whether to normalise, see `ConvBlock`.
      first: whether this is the network's first block.
    """

    features: int
    form: tuple[int, bool] = (1, True)
    first: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        padding, normalise = self.form
        conv = partial(ConvBlock, self.features, 3, padding, dtype=self.dtype)
        x = conv(normalise and not self.first, name="conv1")(x, train)
        return conv(normalise, name="conv2")(x, train)


class DecodingBlock(nn.Module):
    """Transposed convolution by two, the skip connection cropped and joined, two convolutions.

    Attributes:
      form: padding and whether to normalise, see `ConvBlock`.
    """

    features: int
    form: tuple[int, bool] = (1, True)
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, skip: Float[Array, "b h w c"], x: Float[Array, "b p q d"], train: bool
    ) -> Float[Array, "b i j e"]:
        x = ConvTranspose2d(x.shape[-1], 2, 2, dtype=self.dtype, name="upsample")(x)
        # In the valid form the skip connection still has the borders that convolutions took.
        x = jnp.concatenate([center_crop(skip, x.shape[1:3]), x], axis=-1)
        conv = partial(ConvBlock, self.features, 3, *self.form, dtype=self.dtype)
        return conv(name="conv2")(conv(name="conv1")(x, train), train)


class Encoder(nn.Module):
    """Stages of doubling width, each followed by a halving; returns what the decoder joins too.

    Attributes:
      width: channels of the first stage.
      depth: how many stages.
      form: padding and whether to normalise, see `ConvBlock`.
      remat: recompute each stage in the backward pass to save memory.
    """

    width: int
    depth: int
    form: tuple[int, bool] = (1, True)
    remat: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool
    ) -> tuple[Float[Array, "b p q d"], list[Float[Array, "b _ _ _"]]]:
        block = nn.remat(EncodingBlock, static_argnums=(2,)) if self.remat else EncodingBlock
        skips = []
        for level in range(self.depth):
            features, name = self.width * 2**level, f"encoding_blocks_{level}"
            x = block(features, self.form, level == 0, self.dtype, name=name)(x, train)
            skips.append(x)
            x = max_pool2d(x, 2)
        return x, skips


class Decoder(nn.Module):
    """The encoder's stages in reverse, from the deepest skip connection to the first.

    Attributes:
      form: padding and whether to normalise, see `ConvBlock`.
      remat: recompute each stage in the backward pass to save memory.
    """

    form: tuple[int, bool] = (1, True)
    remat: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b p q d"], skips: list[Float[Array, "b _ _ _"]], train: bool
    ) -> Float[Array, "b i j k"]:
        block = nn.remat(DecodingBlock, static_argnums=(3,)) if self.remat else DecodingBlock
        for index, skip in enumerate(reversed(skips)):
            name = f"decoding_blocks_{index}"
            x = block(skip.shape[-1], self.form, self.dtype, name=name)(skip, x, train)
        return x


class UNet(nn.Module):
    """Encoder of `depth` halvings, decoder of as many doublings, skip connections between.

    Returns logits [b, h, w, num_classes], or with no classes the decoder's last map. With same
    padding, sides that are no multiple of 2**depth are padded below and to the right and the logits
    cut back. The valid form (`padding=0`) gives a smaller map, as in the paper (572 → 388).

    Attributes:
      width: channels of the first stage, doubled at every halving.
      depth: how many halvings.
      padding: of the 3x3 convolutions: 1, or 0 for the valid form.
      normalise: batch normalisation after every convolution but the first.
      remat: recompute each stage in the backward pass to save memory.
    """

    num_classes: int = 2
    width: int = 64
    depth: int = 4
    padding: int = 1
    normalise: bool = True
    remat: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b i j k"]:
        form = (self.padding, self.normalise)
        height, width = image.shape[1:3]
        x = image
        if not self.padding and min(height, width) < (smallest := self._smallest_valid()):
            raise UserError(
                f"Images of {height}x{width} vanish in the valid form of U-Net with {self.depth} "
                f"halvings; their sides must be at least {smallest}, or set padding to 1."
            )
        if self.padding:
            x = pad_to_multiple(x, 2**self.depth)
        remat, dtype = self.remat, self.dtype
        x, skips = Encoder(self.width, self.depth, form, remat, dtype, name="encoder")(x, train)
        bottom = self.width * 2**self.depth
        x = EncodingBlock(bottom, form, dtype=dtype, name="bottom_block")(x, train)
        x = Decoder(form, remat, dtype, name="decoder")(x, skips, train)
        if self.num_classes:
            classify = ConvBlock(
                self.num_classes, 1, 0, False, False, dtype=self.dtype, name="classifier"
            )
            x = classify(x, train)
        return x[:, :height, :width] if self.padding else x

    def _smallest_valid(self) -> int:
        # Two convolutions eat four pixels. The decoder turns n into 2 ** depth * (n - 4) + 4, of
        # which at least one must be left; the encoder is followed back from there.
        side = 4 * (2**self.depth - 1) // 2**self.depth + 1
        for _ in range(self.depth):
            side = 2 * (side + 4)
        return side + 4


def without_aliases(state: StateDict) -> StateDict:
    """The reference registers each layer twice; this drops the copies under `.block.<n>`."""
    return {k: v for k, v in state.items() if not re.search(r"\.block\.\d+\.\w+$", k)}


def with_aliases(state: StateDict) -> StateDict:
    """The inverse of `without_aliases`, so that the reference loads all that it registers."""
    aliases = {
        name.replace(f".{layer}.", f".block.{index}."): value
        for index, layer in enumerate(("conv_layer", "norm_layer"))
        for name, value in state.items()
        if f".{layer}." in name
    }
    return state | aliases


def _unet(reference: str, shape: tuple[int, int, int], **options: Any) -> Variant:
    return Variant(
        UNet,
        options,
        f"unet.UNet({shape[2]}, 2, dimensions=2, {reference})",
        shape,
        "Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597",
        classifier=("classifier.conv_layer",),
        first="encoder.encoding_blocks.0.conv1.conv_layer",
        convert=without_aliases,
        export=with_aliases,
    )


VARIANTS = {
    "unet": _unet("normalization='batch', padding=1", (256, 256, 3)),
    "unet_valid": _unet("padding=0", (572, 572, 1), padding=0, normalise=False),
    "unet_small": _unet(
        "out_channels_first_layer=32, normalization='batch', padding=1", (256, 256, 3), width=32
    ),
}
