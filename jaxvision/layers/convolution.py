"""Convolutions as Flax modules; how they are computed is in `jaxvision.ops.convolution`."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.typing import Initializer
from jaxtyping import Array, Float

from jaxvision.layers.parameters import parameter
from jaxvision.ops.convolution import Padding, Pair, conv2d, conv_transpose2d, pair
from jaxvision.ops.convolution3d import Triple, conv3d, conv_transpose3d, triple
from jaxvision.ops.linear import add_bias

# He et al., "Delving Deep into Rectifiers", 2015, https://arxiv.org/abs/1502.01852. The fan-in
# keeps the variance of the activations also when the convolution is grouped or depthwise.
he_normal = nn.initializers.he_normal()


def bilinear(key: Any, shape: Sequence[int], dtype: Any = jnp.float32) -> Float[Array, "kh kw c d"]:
    """Starts a transposed convolution as bilinear interpolation of each channel.

    Long et al., "Fully Convolutional Networks for Semantic Segmentation", 2015,
    https://arxiv.org/abs/1411.4038. A kernel twice as large as its stride does it exactly.

    Args:
      key: not used.
      shape: (kh, kw, out, in); channel i goes to channel i.
      dtype: of the kernel.
    """
    *size, features, channels = shape
    lines = []
    for side in size:
        factor = (side + 1) // 2
        centre = factor - 1 if side % 2 else factor - 0.5
        lines.append(1 - np.abs(np.arange(side) - centre) / factor)
    kernel = np.multiply.outer(*lines)[..., None, None] * np.eye(features, channels)
    return jnp.asarray(kernel, dtype)


def _with_parameters(layer: Any, x: Array, shape: tuple[int, ...]) -> tuple[Array, Array, Any]:
    """The input, the kernel of a shape, and the bias or None, in what the layer computes in."""
    kernel = parameter(layer, "kernel", layer.kernel_init, shape, jnp.float32)
    bias = None
    if layer.use_bias:
        bias = parameter(layer, "bias", layer.bias_init, (layer.features,), jnp.float32)
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=layer.dtype)
    return x, kernel, bias


class Conv2d(nn.Module):
    """A 2-D convolution with PyTorch's padding. Parameters: `kernel` (HWIO) and `bias`, float32.

    Attributes:
      features: channels of the output.
      kernel_size: one number or (rows, columns), like `stride` and `dilation`.
      stride: of the windows.
      padding: with zeros, as for `ops.conv2d`; None is `(kernel_size - 1) // 2 * dilation` on all
        sides, which keeps the size of the map for odd kernels at stride 1.
      dilation: the distance between the taps of the kernel.
      groups: how many groups the channels fall into.
      use_bias: whether a bias is added.
      dtype: what is computed in; None is what input and parameters promote to.
      kernel_init: of the kernel; He normal over the fan-in.
      bias_init: of the bias.
      winograd: see `ops.conv2d`.
    """

    features: int
    kernel_size: Pair = 3
    stride: Pair = 1
    padding: Padding | None = None
    dilation: Pair = 1
    groups: int = 1
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Initializer = he_normal
    bias_init: Initializer = nn.initializers.zeros
    winograd: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        size, dilation, padding = pair(self.kernel_size), pair(self.dilation), self.padding
        if padding is None:
            padding = tuple((k - 1) // 2 * d for k, d in zip(size, dilation, strict=True))
        shape = (*size, x.shape[-1] // self.groups, self.features)
        x, kernel, bias = _with_parameters(self, x, shape)
        y = conv2d(
            x,
            kernel,
            stride=self.stride,
            padding=padding,
            dilation=dilation,
            groups=self.groups,
            winograd=self.winograd,
        )
        return y if bias is None else add_bias(y, bias)


class Conv3d(nn.Module):
    """A 3-D convolution with PyTorch's padding. Parameters: `kernel` (DHWIO) and `bias`, float32.

    Attributes:
      features: channels of the output.
      kernel_size: one number or (depth, rows, columns), like all the following.
      stride: of the windows.
      padding: zeros on both sides; None is `(kernel_size - 1) // 2 * dilation`.
      dilation: the distance between the taps of the kernel.
      use_bias: whether a bias is added.
      dtype: what is computed in; None is what input and parameters promote to.
      kernel_init: of the kernel; He normal over the fan-in.
      bias_init: of the bias.
    """

    features: int
    kernel_size: Triple = 3
    stride: Triple = 1
    padding: Triple | None = None
    dilation: Triple = 1
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Initializer = he_normal
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "b d h w c"]) -> Float[Array, "b od oh ow o"]:
        size, dilation, padding = triple(self.kernel_size), triple(self.dilation), self.padding
        if padding is None:
            padding = tuple((k - 1) // 2 * d for k, d in zip(size, dilation, strict=True))
        shape = (*size, x.shape[-1], self.features)
        x, kernel, bias = _with_parameters(self, x, shape)
        y = conv3d(x, kernel, stride=self.stride, padding=padding, dilation=dilation)
        return y if bias is None else add_bias(y, bias)


class ConvTranspose(nn.Module):
    """PyTorch's transposed convolution of any rank: its fields. Parameters are float32.

    Attributes:
      features: channels of the output.
      kernel_size: one number or one for each axis, like all the following.
      stride: by how much the map grows.
      padding: what is cropped from each side.
      output_padding: what is added at the end of each axis.
      use_bias: whether a bias is added.
      dtype: what is computed in; None is what input and parameters promote to.
      kernel_init: of the kernel; He normal over the fan-in.
      bias_init: of the bias.
    """

    features: int
    kernel_size: int | Sequence[int]
    stride: int | Sequence[int]
    padding: int | Sequence[int] = 0
    output_padding: int | Sequence[int] = 0
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Initializer = nn.initializers.he_normal(in_axis=-1, out_axis=-2)
    bias_init: Initializer = nn.initializers.zeros


class ConvTranspose2d(ConvTranspose):
    """That of maps: `kernel` is (kh, kw, out, in); attributes as in `ConvTranspose`."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        return _transposed(self, x, pair(self.kernel_size), conv_transpose2d)


class ConvTranspose3d(ConvTranspose):
    """That of volumes: `kernel` is (kd, kh, kw, out, in); attributes as in `ConvTranspose`."""

    @nn.compact
    def __call__(self, x: Float[Array, "b d h w c"]) -> Float[Array, "b od oh ow o"]:
        return _transposed(self, x, triple(self.kernel_size), conv_transpose3d)


def _transposed(
    layer: ConvTranspose, x: Array, size: tuple[int, ...], convolve: Callable[..., Array]
) -> Array:
    x, kernel, bias = _with_parameters(layer, x, (*size, layer.features, x.shape[-1]))
    y = convolve(
        x,
        kernel,
        stride=layer.stride,
        padding=layer.padding,
        output_padding=layer.output_padding,
    )
    return y if bias is None else add_bias(y, bias)
