"""The U-Net of DDPM: Ho et al., Denoising Diffusion Probabilistic Models, 2020.

https://arxiv.org/abs/2006.11239. Reference: `diffusers.UNet2DModel` with the configurations of
google/ddpm-cifar10-32 and google/ddpm-celebahq-256. With `classes` the embedding of an image's
class is added to that of the time; the last row is that of no class (Ho and Salimans 2022,
https://arxiv.org/abs/2207.12598), so that `num_class_embeds` there is one more.

Parameters start as in the paper's code: uniform over the mean of both fans; last layers of residual
branches, and of the network, at 0.
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.images import check_multiple
from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import GroupNorm
from jaxvision.layers.timesteps import every_image, timestep_embedding
from jaxvision.layers.transformer import attend
from jaxvision.models.variant import Variant
from jaxvision.ops.forms import computed_once
from jaxvision.ops.resize import resize
from jaxvision.state_dict import StateDict, renamed

_EPSILON = 1e-6
_uniform = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
_zeros = nn.initializers.zeros


class ResidualBlock(nn.Module):
    """Two convolutions behind group norms, and the time between them: `ResnetBlock2D`.

    Attributes:
      features: channels of the output.
      groups: of the norms.
      dropout: its rate, before the second convolution.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    features: int
    groups: int = 32
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], embedding: Float[Array, "b e"], train: bool
    ) -> Float[Array, "b h w d"]:
        """Computes; `embedding` is the activated one of the time."""
        conv = partial(Conv2d, self.features, dtype=self.dtype, winograd=True)
        norm = partial(GroupNorm, self.groups, _EPSILON, dtype=self.dtype)
        y = conv(kernel_init=_uniform, name="conv1")(nn.silu(norm(name="norm1")(x)))
        dense = Dense(self.features, dtype=self.dtype, kernel_init=_uniform, name="time_emb_proj")
        y = nn.silu(norm(name="norm2")(y + dense(embedding)[:, None, None]))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        y = conv(kernel_init=_zeros, name="conv2")(y)
        if x.shape[-1] != self.features:
            x = conv(1, kernel_init=_uniform, name="conv_shortcut")(x)
        return computed_once(x + y)


class AttentionBlock(nn.Module):
    """Attention of all places to all, on a residual branch. It is recorded as `attention`.

    Attributes:
      head_dim: channels of a head; None is one head.
      groups: of the norm.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    head_dim: int | None = None
    groups: int = 32
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        batch, *_, channels = x.shape
        size = self.head_dim or channels
        if channels % size:
            raise UserError(f"{channels} channels do not divide into heads of {size}.")
        heads = channels // size
        dense = partial(Dense, channels, dtype=self.dtype)
        norm = GroupNorm(self.groups, _EPSILON, dtype=self.dtype, name="group_norm")
        tokens = norm(x).reshape(batch, -1, channels)
        q, k, v = (
            dense(kernel_init=_uniform, name=f"to_{part}")(tokens).reshape(batch, -1, heads, size)
            for part in "qkv"
        )
        y = attend(self, q, k, v).reshape(tokens.shape)
        y = dense(kernel_init=_zeros, name="to_out_0")(y)
        return computed_once(x + y.reshape(x.shape))


class Resample(nn.Module):
    """Half or twice the size, by a convolution.

    Attributes:
      up: whether the map grows: each pixel is repeated before the convolution.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    up: bool
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        conv = partial(
            Conv2d,
            x.shape[-1],
            dtype=self.dtype,
            kernel_init=_uniform,
            winograd=True,
            name="conv",
        )
        if self.up:
            return conv()(resize(x, (2 * x.shape[1], 2 * x.shape[2]), "nearest"))
        return conv(stride=2, padding=((0, 1), (0, 1)))(x)


class DiffusionUnet(nn.Module):
    """What noise there is in images, or what else it is trained to say of them, [b, h, w, c].

    Attributes:
      widths: channels of the maps, each of half the size of the one before.
      blocks: on the maps of each size, on the way down; on the way up there is one more.
      attention: at which of the sizes places attend to each other, 0 is the image's own; at the
        smallest they always do.
      head_dim: channels of a head of the attention; None is one head.
      groups: of the group norms.
      classes: how many the images may be of; 0 is none.
      out_channels: of the output; None is those of the image.
      dropout: rate in the residual blocks.
      remat: whether residual blocks are computed again in the backward pass to save memory.
      dtype: what is computed in, but for the embedding of the time; None is what input and
        parameters promote to.
    """

    widths: Sequence[int] = (128, 256, 256, 256)
    blocks: int = 2
    attention: Sequence[int] = (1,)
    head_dim: int | None = None
    groups: int = 32
    classes: int = 0
    out_channels: int | None = None
    dropout: float = 0.0
    remat: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b h w c"],
        timestep: Int[Array, "*b"] | int = 0,
        label: Int[Array, " b"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b h w d"]:
        """Looks at images with noise.

        Args:
          image: in -1..1 before noise was added.
          timestep: how noisy each is, or all are.
          label: the class of each; `classes`, or None, is none.
          train: whether dropout acts.

        Raises:
          UserError: the image cannot be halved as often as there are widths, or a label is given to
            a network without classes.
        """
        embedding = nn.silu(self._embedding(image.shape[0], timestep, label))
        check_multiple(image, 2 ** (len(self.widths) - 1), "The diffusion U-Net")
        residual_block = nn.remat(ResidualBlock, static_argnums=3) if self.remat else ResidualBlock

        def block(x: Array, features: int, place: str, attends: bool) -> Array:
            residual, attentive = place.format("resnets"), place.format("attentions")
            one = residual_block(features, self.groups, self.dropout, self.dtype, name=residual)
            x = one(x, embedding, train)
            if attends:
                x = AttentionBlock(self.head_dim, self.groups, self.dtype, name=attentive)(x)
            return x

        conv = partial(Conv2d, dtype=self.dtype)
        x = conv(self.widths[0], kernel_init=_uniform, name="conv_in")(image)
        skips, last = [x], len(self.widths) - 1
        for level, features in enumerate(self.widths):
            for index in range(self.blocks):
                place = f"down_blocks.{level}.{{}}.{index}"
                x = block(x, features, place, level in self.attention)
                skips.append(x)
            if level < last:
                x = Resample(False, self.dtype, name=f"down_blocks.{level}.downsamplers.0")(x)
                skips.append(x)
        x = block(x, self.widths[-1], "mid_block.{}.0", attends=True)
        x = block(x, self.widths[-1], "mid_block.{}.1", attends=False)
        for level, features in reversed(list(enumerate(self.widths))):
            for index in range(self.blocks + 1):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                place = f"up_blocks.{last - level}.{{}}.{index}"
                x = block(x, features, place, level in self.attention)
            if level:
                x = Resample(True, self.dtype, name=f"up_blocks.{last - level}.upsamplers.0")(x)
        norm = GroupNorm(self.groups, _EPSILON, dtype=self.dtype, name="conv_norm_out")
        channels = self.out_channels or image.shape[-1]
        return conv(channels, kernel_init=_zeros, name="conv_out")(nn.silu(norm(x)))

    def _embedding(
        self, images: int, timestep: Int[Array, "*b"] | int, label: Int[Array, " b"] | None
    ) -> Float[Array, "b e"]:
        """Of the time, and of the class where there are any; float32."""
        width = 4 * self.widths[0]
        time = timestep_embedding(every_image(timestep, images), self.widths[0])
        hidden = nn.silu(Dense(width, kernel_init=_uniform, name="time_embedding.linear_1_")(time))
        embedding = Dense(width, kernel_init=_uniform, name="time_embedding.linear_2_")(hidden)
        if not self.classes:
            if label is not None:
                raise UserError("This network knows no classes: make it with classes=N.")
            return embedding
        if label is None:
            label = jnp.full((images,), self.classes)
        return embedding + nn.Embed(self.classes + 1, width, name="class_embedding")(label)


# Attention of files that diffusers wrote before its version 0.17.
_OLD_ATTENTION = (
    (r"(attentions\.\d+\.)query\.", r"\1to_q."),
    (r"(attentions\.\d+\.)key\.", r"\1to_k."),
    (r"(attentions\.\d+\.)value\.", r"\1to_v."),
    (r"(attentions\.\d+\.)proj_attn\.", r"\1to_out.0."),
)


def convert(state: StateDict) -> StateDict:
    """A state_dict by diffusers' present names."""
    return renamed(state, _OLD_ATTENTION)


def _ddpm(hub: str, size: int, **options: Sequence[int]) -> Variant:
    return Variant(
        DiffusionUnet,
        options,
        f"diffusers UNet2DModel of {hub}",
        (size, size, 3),
        "Ho et al. 2020, https://arxiv.org/abs/2006.11239",
        inputs=("image", "timestep", "label"),
        first="conv_in",
        convert=convert,
    )


VARIANTS = {
    "ddpm_cifar10": _ddpm("google/ddpm-cifar10-32", 32),
    "ddpm_256": _ddpm(
        "google/ddpm-celebahq-256", 256, widths=(128, 128, 256, 256, 512, 512), attention=(4,)
    ),
}
