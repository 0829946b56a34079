"""Convolutions as the matrix products that they are."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.ops.windows import Padding, Pair, Window, pad_pairs, pair, window_patches


def im2col(
    x: Float[Array, "b h w c"],
    kernel_size: Pair,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
) -> Float[Array, "b oh ow khkwc"]:
    """The contents of each window of a convolution, as one vector.

    Their product with the kernel as a matrix, `kernel.reshape(-1, o)`, is the convolution:
    Chellapilla et al., "High Performance Convolutional Neural Networks for Document Processing",
    2006, https://inria.hal.science/inria-00112631.

    Args:
      x: the map.
      kernel_size: one number or (rows, columns), like `stride` and `dilation`.
      stride: of the windows.
      padding: with zeros, as for `conv2d`.
      dilation: the distance between the taps of a window.
    """
    window = Window(pair(kernel_size), pair(stride), pair(dilation), pad_pairs(padding))
    patches = window_patches(x, window)
    return patches.reshape(*patches.shape[:3], -1)


def conv_matrix(
    kernel: Float[Array, "*k"],
    size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
) -> Float[Array, "outputs inputs"]:
    """The matrix of a convolution of one channel: each of its rows is the kernel at one place.

    `matrix @ x.ravel()` is the convolution, and `matrix.T @ y.ravel()` the transposed convolution
    of the same kernel, stride and padding: Dumoulin and Visin, "A guide to convolution arithmetic
    for deep learning", 2016, https://arxiv.org/abs/1603.07285.

    Args:
      kernel: of any number of axes; not flipped.
      size: of the map, one number for all axes or one for each, like the following.
      stride: of the windows.
      padding: zeros on both sides of each axis. They have no columns in the matrix.

    Raises:
      ValueError: the kernel does not fit the map.
    """
    axes = kernel.ndim
    sizes, strides, paddings = (
        (value,) * axes if isinstance(value, int) else tuple(value)
        for value in (size, stride, padding)
    )
    taps, inside, outputs = [], jnp.ones((), bool), 1
    for axis, (k, n, s, p) in enumerate(zip(kernel.shape, sizes, strides, paddings, strict=True)):
        places = (n + 2 * p - k) // s + 1
        if places < 1:
            raise ValueError(f"A kernel of {kernel.shape} does not fit a map of {sizes}.")
        outputs *= places
        # Which tap of the window at place i lies on element j: an outer axis and an inner one.
        tap = jnp.arange(n) + p - s * jnp.arange(places)[:, None]
        shape = [1] * (2 * axes)
        shape[axis], shape[axes + axis] = places, n
        tap = tap.reshape(shape)
        taps.append(jnp.clip(tap, 0, k - 1))
        inside = inside & (tap >= 0) & (tap < k)
    return jnp.where(inside, kernel[tuple(taps)], 0).reshape(outputs, -1)
