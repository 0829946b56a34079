"""Autoencoders of images that were corrupted.

Denoising: Vincent et al., Extracting and Composing Robust Features with Denoising Autoencoders,
2008, https://doi.org/10.1145/1390156.1390294. Context encoders: Pathak et al., Context Encoders:
Feature Learning by Inpainting, 2016, https://arxiv.org/abs/1604.07379, without their adversary.

No package has them; the decoders are light and of our own. Of maps it is that of context encoders:
transposed convolutions of 4x4 that double a map until it is an image. Of tokens it is a linear
layer. Those that stand for AlexNet and fully connected layers are any registered network.
"""

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d, ConvTranspose2d
from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import BatchNorm
from jaxvision.layers.parameters import parameter
from jaxvision.layers.patches import from_patches, patch_grid
from jaxvision.models.variant import Variant

_MOST = 512  # channels of a decoder's map


class ChannelwiseDense(nn.Module):
    """A linear layer from all places of a channel to all places of the same channel."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        batch, height, width, channels = x.shape
        places = height * width
        start = nn.initializers.variance_scaling(1.0, "fan_in", "normal", 1, 2, batch_axis=0)
        kernel = parameter(self, "weight", start, (channels, places, places)).astype(x.dtype)
        y = jnp.einsum("bpc,cpq->bqc", x.reshape(batch, places, channels), kernel)
        return y.reshape(x.shape)


class UpDecoder(nn.Module):
    """Doubles a map by transposed convolutions until it is as large as the image, then says pixels.

    Attributes:
      channels: of the image.
      width: channels of the last map; each before it has twice as many, 512 at most.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    channels: int
    width: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b i j d"], size: tuple[int, int], train: bool
    ) -> Float[Array, "b h w c"]:
        steps = 0
        while any(side * 2**steps < whole for side, whole in zip(x.shape[1:3], size)):
            steps += 1
        for step in range(steps):
            width = min(_MOST, self.width * 2 ** (steps - 1 - step))
            x = ConvTranspose2d(
                width, 4, stride=2, padding=1, use_bias=False, dtype=self.dtype, name=f"up_{step}"
            )(x)
            x = nn.relu(BatchNorm(dtype=self.dtype, name=f"norm_{step}")(x, train))
        x = Conv2d(self.channels, 3, padding=1, dtype=self.dtype, name="pixels")(x)
        return x[:, : size[0], : size[1]]


class CorruptedAutoencoder(nn.Module):
    """An encoder of images, and a light decoder to the pixels that they should have.

    Attributes:
      encoder: gives tokens, or maps, of which the last is decoded.
      width: of `UpDecoder`, for maps.
      dtype: what the decoder computes in; None is what input and parameters promote to.
    """

    ENCODER_END: ClassVar[str] = "tokens"
    # Whether each channel of a map is mixed over its places before it is decoded.
    MIXES: ClassVar[bool] = False

    encoder: Any = None
    width: int = 32
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w c"]:
        """Pixels, normalised as the image's are."""
        size, channels = (image.shape[1], image.shape[2]), image.shape[-1]
        found = self.encode(image, train)
        if found.ndim == 4:
            if self.MIXES:
                found = ChannelwiseDense(name="mix")(found)
            return UpDecoder(channels, self.width, self.dtype, name="decoder")(found, size, train)
        patch = self.encoder.patch_size
        grid = patch_grid(image.shape, patch)
        tokens = found[:, found.shape[1] - grid[0] * grid[1] :]
        pixels = Dense(patch**2 * channels, dtype=self.dtype, name="decoder")(tokens)
        return from_patches(pixels, grid, patch)

    def encode(self, image: Float[Array, "b h w c"], train: bool = False) -> Array:
        """Tokens [b, n, c], or the last map [b, h, w, c]."""
        found = self.encoder(image, train)
        return found[-1] if isinstance(found, tuple) else found


class DenoisingAutoencoder(CorruptedAutoencoder):
    """It is to remove noise; attributes as of `CorruptedAutoencoder`."""

    METHOD: ClassVar[str] = "denoising"


class ContextEncoder(CorruptedAutoencoder):
    """It is to say what was cut out; attributes as of `CorruptedAutoencoder`.

    Places of a map are mixed channel by channel, so that images are of one size.
    """

    METHOD: ClassVar[str] = "context"
    MIXES: ClassVar[bool] = True


def _variant(module: type[CorruptedAutoencoder], encoder: str, first: str) -> Variant:
    of_noise = module is DenoisingAutoencoder
    return Variant(
        module,
        {"encoder": encoder},
        f"tests/parity/networks/corrupted.py {module.__name__}",
        paper="Vincent et al. 2008, https://doi.org/10.1145/1390156.1390294"
        if of_noise
        else "Pathak et al. 2016, https://arxiv.org/abs/1604.07379",
        first=f"encoder.{first}",
    )


_ENCODERS = {
    "alexnet": "features.0",
    "resnet18": "conv1",
    "vit_small_patch16_224": "patch_embed.proj",
}
VARIANTS = {
    f"{module.METHOD}_{encoder}": _variant(module, encoder, first)
    for module in (DenoisingAutoencoder, ContextEncoder)
    for encoder, first in _ENCODERS.items()
}
