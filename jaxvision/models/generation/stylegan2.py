"""StyleGAN2, configuration F: Karras et al., Analyzing and Improving ... of StyleGAN, 2020.

https://arxiv.org/abs/1912.04958. References: `StyleGAN2Generator` and `StyleGAN2Discriminator` of
basicsr, whose names NVIDIA's weights converted for PyTorch have. Weights are kept at N(0, 1) and
scaled when they are used, as the authors do it.

A style scales the channels of a convolution's input and the norm of its output, instead of its
kernel: the numbers are the same, and the kernel is one for all images, so that no convolution has
to be grouped by image.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.parameters import parameter
from jaxvision.models.variant import Variant
from jaxvision.ops.convolution import conv2d, conv_transpose2d
from jaxvision.ops.linear import matmul
from jaxvision.ops.upfirdn import upfirdn2d
from jaxvision.state_dict import StateDict

_NORMAL = nn.initializers.normal(1.0)
_TAPS = (0.125, 0.375, 0.375, 0.125)
_TWICE = tuple(2 * tap for tap in _TAPS)  # of what zeros were put into
_WIDEST, _GROUP = 512, 4


def _stages(size: int) -> int:
    """How often a map of 4 pixels doubles.

    Raises:
      UserError: `size` is no power of two from 8 on.
    """
    times = math.log2(size / 4)
    if size < 8 or times != int(times):
        raise UserError(f"size={size} is none of 8, 16, 32, 64, ...")
    return int(times)


def _width(side: int, multiplier: int, narrow: float) -> int:
    """Channels of a map."""
    return int(_WIDEST * narrow) if side <= 32 else int(16384 // side * multiplier * narrow)


def _active(x: Array, bias: Array | float = 0.0) -> Array:
    return math.sqrt(2) * nn.leaky_relu(x + bias, 0.2)


class EqualLinear(nn.Module):
    """A linear layer whose weights are scaled by one over the root of its inputs.

    Attributes:
      features: of the output.
      rate: multiplies the learning rate of weights and bias.
      start: of the bias.
      active: whether a leaky ReLU follows.
    """

    features: int
    rate: float = 1.0
    start: float = 0.0
    active: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        start = nn.initializers.normal(1 / self.rate)
        kernel = parameter(self, "kernel", start, (x.shape[-1], self.features))
        bias = parameter(self, "bias", nn.initializers.constant(self.start), (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = matmul(x, kernel * (self.rate / math.sqrt(x.shape[-1]))) + bias * self.rate
        return _active(y) if self.active else y


class ModulatedConv(nn.Module):
    """A convolution of channels that a style scales.

    Attributes:
      features: channels of the output.
      kernel_size: side of the kernel.
      up: whether the map doubles.
      demodulate: whether outputs are divided by the norms of the scaled kernel.
    """

    features: int
    kernel_size: int = 3
    up: bool = False
    demodulate: bool = True
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], style: Float[Array, "b d"]
    ) -> Float[Array, "b oh ow o"]:
        channels, side = x.shape[-1], self.kernel_size
        kernel = parameter(self, "kernel", _NORMAL, (side, side, channels, self.features))
        scales = EqualLinear(channels, start=1.0, dtype=self.dtype, name="modulation")(style)
        x, kernel, scales = nn.dtypes.promote_dtype(x, kernel, scales, dtype=self.dtype)
        kernel = kernel / math.sqrt(channels * side * side)
        x = x * scales[:, None, None, :]
        if self.up:
            y = conv_transpose2d(x, kernel.swapaxes(2, 3), stride=2)
            y = upfirdn2d(y, _TWICE, padding=(1, 1))
        else:
            y = conv2d(x, kernel, padding=side // 2)
        if not self.demodulate:
            return y
        norms = matmul(jnp.square(scales), jnp.square(kernel).sum((0, 1)))
        return y * jax.lax.rsqrt(norms + 1e-8)[:, None, None, :]


class StyleConv(nn.Module):
    """A modulated convolution, noise, a bias and a leaky ReLU."""

    features: int
    up: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        style: Float[Array, "b d"],
        noise: Float[Array, "n oh ow 1"],
    ) -> Float[Array, "b oh ow o"]:
        conv = ModulatedConv(self.features, up=self.up, dtype=self.dtype, name="modulated_conv")
        y = conv(x, style)
        strength = parameter(self, "weight", nn.initializers.zeros, (1,))
        y = y + (strength * noise).astype(y.dtype)
        return _Biased(name="activate")(y)


class _Biased(nn.Module):
    """A bias and a leaky ReLU."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        bias = parameter(self, "bias", nn.initializers.zeros, (x.shape[-1],))
        return _active(x, bias.astype(x.dtype))


class ToImage(nn.Module):
    """A map's share of the image, added to what smaller maps gave."""

    channels: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        style: Float[Array, "b d"],
        before: Float[Array, "b i j o"] | None = None,
    ) -> Float[Array, "b h w o"]:
        conv = ModulatedConv(
            self.channels, 1, demodulate=False, dtype=self.dtype, name="modulated_conv"
        )
        bias = parameter(self, "bias", nn.initializers.zeros, (1, self.channels, 1, 1))
        image = conv(x, style).astype(jnp.float32) + bias[:, :, 0, 0]
        return image if before is None else image + upfirdn2d(before, _TWICE, 2, padding=(2, 1))


class _Normed(nn.Module):
    """Vectors of root mean square one."""

    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b d"]:
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=1, keepdims=True) + 1e-8)


class _Constant(nn.Module):
    """What every image begins with, laid out as in the reference."""

    features: int

    @nn.compact
    def __call__(self, count: int) -> Float[Array, "b 4 4 c"]:
        start = parameter(self, "weight", _NORMAL, (1, self.features, 4, 4))
        return jnp.broadcast_to(start.transpose(0, 2, 3, 1), (count, 4, 4, self.features))


class _Noises(nn.Module):
    """The noise of images that are not to differ in it; in the collection `constants`."""

    sides: tuple[int, ...]

    @nn.compact
    def __call__(self) -> list[Float[Array, "1 h w 1"]]:
        found = []
        for index, side in enumerate(self.sides):
            shape = (1, 1, side, side)
            noise = self.variable(
                "constants",
                f"noise{index}",
                lambda shape=shape: jax.random.normal(self.make_rng("params"), shape),
            )
            found.append(noise.value.transpose(0, 2, 3, 1))
        return found


class Generator(nn.Module):
    """A latent vector [b, latent] to a style, and a style for each layer to an image in -1..1.

    Attributes:
      size: side of the images.
      channels: of the images.
      latent: length of latents and styles.
      layers: of the mapping from the one to the other.
      multiplier, narrow: of channels: of maps above 32 pixels, and of all.
      rate: of the mapping's learning rate.
    """

    size: int = 1024
    channels: int = 3
    latent: int = 512
    layers: int = 8
    multiplier: int = 2
    narrow: float = 1.0
    rate: float = 0.01
    dtype: jnp.dtype | None = None

    def setup(self):
        widths = [_width(4 * 2**i, self.multiplier, self.narrow) for i in range(self._times + 1)]
        mapping = [EqualLinear(self.latent, self.rate, active=True) for _ in range(self.layers)]
        self.style_mlp = [_Normed(), *mapping]
        self.constant_input = _Constant(widths[0])
        self.noises = _Noises(self.sides)
        self.style_conv1 = StyleConv(widths[0], dtype=self.dtype)
        self.to_rgb1 = ToImage(self.channels, dtype=self.dtype)
        self.style_convs = [
            StyleConv(width, up=up, dtype=self.dtype)
            for width in widths[1:]
            for up in (True, False)
        ]
        self.to_rgbs = [ToImage(self.channels, dtype=self.dtype) for _ in widths[1:]]

    @property
    def _times(self) -> int:
        return _stages(self.size)

    @property
    def styles(self) -> int:
        """How many styles an image is made of."""
        return 2 * self._times + 2

    @property
    def sides(self) -> tuple[int, ...]:
        """Of the maps that noise is added to, in order."""
        return (4, *(4 * 2**i for i in range(1, self._times + 1) for _ in range(2)))

    def noise(self, keys: Array) -> list[Float[Array, "b h w 1"]]:
        """Noise for `synthesis`, each image's from a key of its own [b]."""

        def of(key: Array) -> list[Array]:
            each = jax.random.split(key, len(self.sides))
            return [jax.random.normal(k, (side, side, 1)) for k, side in zip(each, self.sides)]

        return jax.vmap(of)(keys)

    def mapping(self, latent: Float[Array, "b z"]) -> Float[Array, "b z"]:
        """Styles of latents."""
        for layer in self.style_mlp:
            latent = layer(latent)
        return latent

    def synthesis(
        self, styles: Float[Array, "b n z"], noise: Sequence[Array] | None = None
    ) -> Float[Array, "b s s c"]:
        """Images of a style for each layer; without noise the stored one is taken."""
        noise = self.noises() if noise is None else noise
        x = self.constant_input(styles.shape[0])
        x = self.style_conv1(x, styles[:, 0], noise[0])
        image = self.to_rgb1(x, styles[:, 1])
        for index, to_image in enumerate(self.to_rgbs):
            first = 2 * index + 1
            for place in (first, first + 1):
                x = self.style_convs[place - 1](x, styles[:, place], noise[place])
            image = to_image(x, styles[:, first + 2], image)
        return image

    def __call__(self, latent: Float[Array, "b z"], train: bool = False) -> Float[Array, "b s s c"]:
        style = self.mapping(latent)
        return self.synthesis(jnp.repeat(style[:, None], self.styles, 1))


class Discriminator(nn.Module):
    """Residual blocks from images [b, s, s, c] in -1..1 to a logit [b]: is it one of the data?

    Attributes:
      multiplier, narrow: as of the generator.
    """

    multiplier: int = 2
    narrow: float = 1.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image: Float[Array, "b s s c"], train: bool = False) -> Float[Array, " b"]:
        size = image.shape[1]
        sides = [size // 2**i for i in range(_stages(size) + 1)]
        widths = [_width(side, self.multiplier, self.narrow) for side in sides]
        x = EqualConv(widths[0], 1, dtype=self.dtype, name="conv_body_0_0")(image)
        x = _Biased(name="conv_body_0_1")(x)
        for index, width in enumerate(widths[1:], 1):
            x = ResBlock(width, dtype=self.dtype, name=f"conv_body_{index}")(x)
        x = jnp.concatenate([x, _spread(x)], -1)
        x = EqualConv(widths[-1], 3, dtype=self.dtype, name="final_conv_0")(x)
        x = _Biased(name="final_conv_1")(x)
        # The reference flattens channels first.
        flat = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        linear = EqualLinear(widths[-1], active=True, dtype=self.dtype, name="final_linear_0")
        return EqualLinear(1, name="final_linear_1")(linear(flat))[:, 0]


def _spread(x: Float[Array, "b h w c"]) -> Float[Array, "b h w 1"]:
    """How much the images of a group differ, a number for the group.

    Karras et al., Progressive growing of GANs, 2018, https://arxiv.org/abs/1710.10196. The k-th
    images of all parts of the batch are a group; groups have four, or the most below that divide
    the batch.
    """
    group = next(g for g in range(min(_GROUP, len(x)), 0, -1) if len(x) % g == 0)
    parts = x.astype(jnp.float32).reshape(group, -1, *x.shape[1:])
    spread = jnp.sqrt(jnp.var(parts, axis=0) + 1e-8).mean((1, 2, 3))
    rows = jnp.tile(spread, group)[:, None, None, None]
    return jnp.broadcast_to(rows, (*x.shape[:3], 1)).astype(x.dtype)


class EqualConv(nn.Module):
    """A convolution whose kernel is scaled by one over the root of its inputs.

    Attributes:
      features: channels of the output.
      kernel_size: side of the kernel.
      down: whether the map is smoothed and halved.
    """

    features: int
    kernel_size: int
    down: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        side, channels = self.kernel_size, x.shape[-1]
        kernel = parameter(self, "kernel", _NORMAL, (side, side, channels, self.features))
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        kernel = kernel / math.sqrt(channels * side * side)
        if not self.down:
            return conv2d(x, kernel, padding=side // 2)
        pad = len(_TAPS) - 2 + side - 1
        if side == 1:  # of what is smoothed, only what is kept is computed
            return conv2d(upfirdn2d(x, _TAPS, down=2, padding=((pad + 1) // 2, pad // 2)), kernel)
        x = upfirdn2d(x, _TAPS, padding=((pad + 1) // 2, pad // 2))
        return conv2d(x, kernel, stride=2)


class ResBlock(nn.Module):
    """Two convolutions beside one, all at half the side after them."""

    features: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j o"]:
        y = EqualConv(x.shape[-1], 3, dtype=self.dtype, name="conv1_0")(x)
        y = _Biased(name="conv1_1")(y)
        y = EqualConv(self.features, 3, down=True, dtype=self.dtype, name="conv2_1")(y)
        y = _Biased(name="conv2_2")(y)
        short = EqualConv(self.features, 1, down=True, dtype=self.dtype, name="skip_1")(x)
        return (y + short) / math.sqrt(2)


def _without_first_axis(state: StateDict) -> StateDict:
    """Kernels of modulated convolutions, which the reference keeps as [1, o, i, k, k]."""
    return {
        name: value[0] if name.endswith("modulated_conv.weight") and value.ndim == 5 else value
        for name, value in state.items()
    }


def _with_first_axis(state: StateDict) -> StateDict:
    return {
        name: value[None] if name.endswith("modulated_conv.weight") else value
        for name, value in state.items()
    }


_PAPER = "Karras et al. 2020, https://arxiv.org/abs/1912.04958"
VARIANTS: dict[str, Any] = {
    "stylegan2_generator": Variant(
        Generator,
        {},
        "basicsr StyleGAN2Generator",
        (512,),
        _PAPER,
        first="style_mlp.1",
        inputs=("latent",),
        convert=_without_first_axis,
        export=_with_first_axis,
    ),
    "stylegan2_discriminator": Variant(
        Discriminator,
        {},
        "basicsr StyleGAN2Discriminator",
        (1024, 1024, 3),
        _PAPER,
        first="conv_body.0.0",
    ),
}
