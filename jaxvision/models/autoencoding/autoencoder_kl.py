"""The KL autoencoder of latent diffusion: Rombach et al. 2021, https://arxiv.org/abs/2112.10752.

The reference is diffusers' `AutoencoderKL`, whose files load by name, those that call the layers of
its attention `query`, `key`, `value` and `proj_attn` too. Group norms have 32 groups and an epsilon
of 1e-6, activations are SiLU. Latent variables are as the encoder gives them: what is trained on
them multiplies them by the file's `scaling_factor`, 0.18215 for Stable Diffusion's.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.images import check_multiple
from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import GroupNorm
from jaxvision.models.autoencoding.posterior import Posterior
from jaxvision.models.variant import Variant
from jaxvision.ops.attention import dot_product_attention
from jaxvision.ops.resize import resize
from jaxvision.ops.windows import Pair, pair
from jaxvision.state_dict import StateDict, renamed

_EPSILON = 1e-6
_LOG_VARIANCE = (-30.0, 20.0)  # the reference keeps it within
Maps = Float[Array, "b h w c"]


class ResnetBlock(nn.Module):
    """Norm, SiLU and a 3x3 convolution, twice; added to what came in.

    Attributes:
      features: channels of the output; where they change, a 1x1 convolution brings the input there.
      groups: of the norms.
    """

    features: int
    groups: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        norm = partial(GroupNorm, self.groups, _EPSILON)
        y = Conv2d(self.features, 3, dtype=self.dtype, name="conv1")(nn.silu(norm(name="norm1")(x)))
        y = Conv2d(self.features, 3, dtype=self.dtype, name="conv2")(nn.silu(norm(name="norm2")(y)))
        if x.shape[-1] != self.features:
            x = Conv2d(self.features, 1, dtype=self.dtype, name="conv_shortcut")(x)
        return x + y


class Attention(nn.Module):
    """Each place of a map looks at all others, with one head; added to what came in."""

    groups: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        batch, *_, channels = x.shape
        tokens = GroupNorm(self.groups, _EPSILON, name="group_norm")(x)
        tokens = tokens.reshape(batch, -1, channels)
        dense = partial(Dense, channels, dtype=self.dtype)
        q, k, v = (dense(name=name)(tokens)[:, :, None] for name in ("to_q", "to_k", "to_v"))
        seen = dot_product_attention(q, k, v)[:, :, 0]
        return x + dense(name="to_out_0")(seen).reshape(x.shape)


class MidBlock(nn.Module):
    """A residual block, attention, and another residual block."""

    groups: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        block = partial(ResnetBlock, x.shape[-1], self.groups, self.dtype)
        x = block(name="resnets_0")(x)
        x = Attention(self.groups, self.dtype, name="attentions_0")(x)
        return block(name="resnets_1")(x)


class Resampler(nn.Module):
    """A 3x3 convolution that halves a map, or follows its doubling by nearest neighbours."""

    up: bool
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        conv = partial(Conv2d, x.shape[-1], 3, dtype=self.dtype, name="conv")
        if not self.up:
            return conv(stride=2, padding=((0, 1), (0, 1)))(x)
        height, width = (2 * side for side in x.shape[1:3])
        return conv()(resize(x, (height, width), "nearest"))


class Stage(nn.Module):
    """Residual blocks, and perhaps a resampling after them.

    Attributes:
      features: channels of the output.
      depth: how many blocks.
      groups: of the norms.
      resampler: what the reference calls the resampling; "" is none.
    """

    features: int
    depth: int
    groups: int
    resampler: str = ""
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        for index in range(self.depth):
            x = ResnetBlock(self.features, self.groups, self.dtype, name=f"resnets_{index}")(x)
        if self.resampler:
            up = self.resampler == "upsamplers"
            x = Resampler(up, self.dtype, name=f"{self.resampler}_0")(x)
        return x


class Encoder(nn.Module):
    """From images to maps of `features` channels; each stage but the last halves them."""

    features: int
    widths: Sequence[int]
    depth: int
    groups: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image: Maps) -> Maps:
        x = Conv2d(self.widths[0], 3, dtype=self.dtype, name="conv_in")(image)
        for index, width in enumerate(self.widths):
            resampler = "downsamplers" if index < len(self.widths) - 1 else ""
            stage = Stage(
                width, self.depth, self.groups, resampler, self.dtype, name=f"down_blocks_{index}"
            )
            x = stage(x)
        x = MidBlock(self.groups, self.dtype, name="mid_block")(x)
        return _out(self, x)


class Decoder(nn.Module):
    """From latent variables to maps of `features` channels; all stages but the last double them."""

    features: int
    widths: Sequence[int]
    depth: int
    groups: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, latent: Maps) -> Maps:
        x = Conv2d(self.widths[-1], 3, dtype=self.dtype, name="conv_in")(latent)
        x = MidBlock(self.groups, self.dtype, name="mid_block")(x)
        for index, width in enumerate(reversed(self.widths)):
            resampler = "upsamplers" if index < len(self.widths) - 1 else ""
            stage = Stage(
                width, self.depth + 1, self.groups, resampler, self.dtype, name=f"up_blocks_{index}"
            )
            x = stage(x)
        return _out(self, x)


def _out(module: Any, x: Maps) -> Maps:
    """A norm, SiLU and a convolution, of the module that calls."""
    x = nn.silu(GroupNorm(module.groups, _EPSILON, name="conv_norm_out")(x))
    return Conv2d(module.features, 3, dtype=module.dtype, name="conv_out")(x)


class AutoencoderKL(nn.Module):
    """Latent variables for each square of `stride` pixels of an image of any size.

    Attributes:
      size: side or (height, width) of images that are made of latent variables alone.
      channels: of the images.
      latent: latent variables of a place.
      widths: channels of the stages, from the image's to the smallest maps'.
      depth: residual blocks of a stage of the encoder; the decoder's have one more.
      groups: of the norms.
    """

    CODE: ClassVar[str] = "posterior"

    size: Pair = 256
    channels: int = 3
    latent: int = 4
    widths: Sequence[int] = (128, 256, 512, 512)
    depth: int = 2
    groups: int = 32
    dtype: jnp.dtype | None = None

    def setup(self):
        sizes = (self.widths, self.depth, self.groups, self.dtype)
        self.encoder = Encoder(2 * self.latent, *sizes)
        self.quant_conv = Conv2d(2 * self.latent, 1, dtype=self.dtype)
        self.post_quant_conv = Conv2d(self.latent, 1, dtype=self.dtype)
        self.decoder = Decoder(self.channels, *sizes)

    @property
    def stride(self) -> int:
        """Pixels, down and across, of one place of the latent map."""
        return 2 ** (len(self.widths) - 1)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of the latent variables of one image of `size`."""
        height, width = pair(self.size)
        return (height // self.stride, width // self.stride, self.latent)

    def encode(self, image: Maps, train: bool = False) -> Posterior:
        check_multiple(image, self.stride, "A KL autoencoder")
        mean, log_variance = jnp.split(self.quant_conv(self.encoder(image)), 2, -1)
        return Posterior(mean, jnp.clip(log_variance, *_LOG_VARIANCE))

    def decode(self, latent: Maps, train: bool = False) -> Maps:
        return self.decoder(self.post_quant_conv(latent))

    def __call__(self, image: Maps, train: bool = False) -> Maps:
        return self.decode(self.encode(image, train).mean, train)


_OLDER = (
    (r"\.attentions\.0\.query\.", ".attentions.0.to_q."),
    (r"\.attentions\.0\.key\.", ".attentions.0.to_k."),
    (r"\.attentions\.0\.value\.", ".attentions.0.to_v."),
    (r"\.attentions\.0\.proj_attn\.", ".attentions.0.to_out.0."),
)


def from_older(state: StateDict) -> StateDict:
    """A state_dict by the names of today, whichever of diffusers' versions wrote it."""
    return renamed(state, _OLDER)


VARIANTS = {
    "autoencoder_kl": Variant(
        AutoencoderKL,
        {},
        "diffusers AutoencoderKL",
        (256, 256, 3),
        "Rombach et al. 2021, https://arxiv.org/abs/2112.10752",
        first="encoder.conv_in",
        convert=from_older,
    )
}
