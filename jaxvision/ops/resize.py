"""Resizing of NHWC arrays with the semantics of `torch.nn.functional.interpolate`."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped, UInt8

from jaxvision.ops.forms import in_memory, per_platform
from jaxvision.ops.windows import Pair, pair

# Up to so many rows that make one, adding them up is faster on CPUs than a matrix product.
_MOST_TAPS = 16


def _linear(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys, "Cubic convolution interpolation for digital image processing", 1981."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def resize_matrix(
    size: int, new_size: int, method: str, align_corners: bool = False, antialias: bool = False
) -> Float[np.ndarray, "new old"]:
    """The matrix that resizes one axis.

    As in PyTorch, the cubic kernel has a = -0.75, and -0.5 (Pillow's) with antialiasing.

    Args:
      size: the length of the axis.
      new_size: its length afterwards.
      method: "bilinear" or "bicubic".
      align_corners: whether the centres of the first and last pixels stay where they are, rather
        than the outer edges of these pixels.
      antialias: whether the kernel is widened when the axis shrinks.
    """
    if align_corners:
        scale = (size - 1) / (new_size - 1) if new_size > 1 else 0.0
    else:
        scale = size / new_size
    radius, kernel = {
        "bilinear": (1, _linear),
        "bicubic": (2, lambda x: _cubic(x, -0.5 if antialias else -0.75)),
    }[method]
    places, rows = np.arange(new_size), np.arange(new_size)[:, None]
    if antialias:
        return _widened(size, new_size, radius, kernel).astype(np.float32)
    centre = scale * places if align_corners else scale * (places + 0.5) - 0.5
    if method == "bilinear" and not align_corners:
        centre = np.maximum(centre, 0)
    columns = np.floor(centre).astype(int)[:, None] + np.arange(1 - radius, radius + 1)
    matrix = np.zeros((new_size, size))
    # What lies beyond the border is the border's pixel.
    np.add.at(matrix, (rows, np.clip(columns, 0, size - 1)), kernel(centre[:, None] - columns))
    return matrix.astype(np.float32)


def _widened(
    size: int, new_size: int, radius: int, kernel: Callable[[np.ndarray], np.ndarray]
) -> Float[np.ndarray, "new old"]:
    """The matrix of a kernel that is widened when the axis shrinks, float64, as Pillow makes it."""
    scale = size / new_size
    width = max(scale, 1.0)
    centre = scale * (np.arange(new_size) + 0.5)
    low = np.maximum((centre - radius * width + 0.5).astype(int), 0)[:, None]
    high = np.minimum((centre + radius * width + 0.5).astype(int), size)[:, None]
    columns = np.arange(size)
    weights = kernel((columns + 0.5 - centre[:, None]) / width)
    weights = np.where((columns >= low) & (columns < high), weights, 0)
    return weights / weights.sum(1, keepdims=True)


def _nearest(x: Array, axis: int, new_size: int) -> Array:
    size = x.shape[axis]
    if new_size % size == 0:
        # A broadcast; its gradient is a sum, where that of a gather would be a scatter.
        return jnp.repeat(x, new_size // size, axis, total_repeat_length=new_size)
    index = np.floor(np.arange(new_size, dtype=np.float32) * np.float32(size / new_size))
    return jnp.take(x, np.minimum(index.astype(int), size - 1), axis=axis)


def _product(x: Array, matrix: np.ndarray, axis: int) -> Array:
    subscripts = "oh,bhwc->bowc" if axis == 1 else "ow,bhwc->bhoc"
    # Accelerators would multiply in bfloat16 or TF32, which is too coarse for images.
    return jnp.einsum(subscripts, matrix, x, precision=lax.Precision.HIGHEST)


def _sum_of_rows(x: Array, matrix: np.ndarray, axis: int) -> Array:
    """The same, of a matrix with few numbers that are not 0 in a row."""
    taps = np.count_nonzero(matrix, 1).max()
    if taps > _MOST_TAPS:
        return _product(x, matrix, axis)
    columns = np.sort(np.argsort(matrix == 0, 1, stable=True)[:, :taps], 1)
    weights = np.take_along_axis(matrix, columns, 1)
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    rows = (jnp.take(x, column, axis, mode="clip") for column in columns.T)
    return in_memory(sum(r * w.reshape(shape) for r, w in zip(rows, weights.T, strict=True)))


def _by_sums(x: Array, matrix: np.ndarray, axis: int) -> Array:
    """`_sum_of_rows` with a gradient that is a sum of rows too, and not a scatter."""
    product = jax.custom_vjp(lambda x: _sum_of_rows(x, matrix, axis))
    product.defvjp(lambda x: (product(x), None), lambda _, g: (_by_sums(g, matrix.T, axis),))
    return product(x)


def _along_both(along: Callable[[Array, np.ndarray, int], Array], static: tuple, x: Array) -> Array:
    new_sizes, *kernel = static
    for axis, new_size in enumerate(new_sizes, start=1):
        if x.shape[axis] != new_size:
            x = along(x, resize_matrix(x.shape[axis], new_size, *kernel), axis)
    return x


_resize = per_platform(cpu=partial(_along_both, _by_sums), default=partial(_along_both, _product))


def resize(
    x: Shaped[Array, "b h w c"],
    size: Pair,
    method: str = "bilinear",
    align_corners: bool = False,
    antialias: bool = False,
) -> Shaped[Array, "b new_h new_w c"]:
    """Resizes maps as `torch.nn.functional.interpolate` does when it is given a size.

    Bilinear and bicubic are two small matrix products in float32, or on CPUs sums of rows; the
    result has the dtype of `x`. These two differentiate in reverse mode (any order), not in forward
    mode.

    Args:
      x: the maps; floats, or anything for "nearest".
      size: the new size, one number or (height, width).
      method: "nearest", "bilinear" or "bicubic".
      align_corners: whether the centres of the corner pixels stay in the corners.
      antialias: whether the kernel is widened when shrinking.

    Raises:
      ValueError: the method is unknown or not for this dtype, an option has no meaning for it, or
        a size is less than 1.
    """
    height, width = pair(size)
    if x.ndim != 4 or min(*x.shape[1:3], height, width) < 1:
        raise ValueError(f"A map of shape {x.shape} cannot be resized to {height}x{width}.")
    if method == "nearest":
        if align_corners or antialias:
            raise ValueError("align_corners and antialias have no meaning for method 'nearest'.")
        return _nearest(_nearest(x, 1, height), 2, width)
    if method not in ("bilinear", "bicubic"):
        raise ValueError(f"method is 'nearest', 'bilinear' or 'bicubic', not {method!r}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"method {method!r} is for floats, not {x.dtype}.")
    static = ((height, width), method, align_corners, antialias)
    return _resize(static, x.astype(jnp.float32)).astype(x.dtype)


_BITS = 22  # of the fractions that Pillow multiplies pixels by


def resize_pixels(x: UInt8[Array, "b h w c"], size: Pair) -> UInt8[Array, "b new_h new_w c"]:
    """Images resized by Pillow's bicubic filter, bit for bit: `Image.resize(size, BICUBIC)`.

    Keys' kernel with a = -0.5, widened when an axis shrinks, in whole numbers; rows are resized
    first and rounded to pixels before columns are.

    Args:
      x: the images.
      size: the new size, one number or (height, width).
    """
    height, width = pair(size)
    for axis, new_size in ((2, width), (1, height)):
        if x.shape[axis] != new_size:
            matrix = _widened(x.shape[axis], new_size, 2, lambda t: _cubic(t, -0.5))
            x = _rounded_sums(x, matrix, axis)
    return x


def _rounded_sums(x: Array, matrix: np.ndarray, axis: int) -> Array:
    """Sums of pixels along an axis, weighted by the rows of a matrix, as pixels."""
    fractions = np.trunc(matrix * 2**_BITS + np.where(matrix < 0, -0.5, 0.5)).astype(np.int32)
    taps = np.count_nonzero(fractions, 1).max()
    columns = np.sort(np.argsort(fractions == 0, 1, stable=True)[:, :taps], 1)
    weights = np.take_along_axis(fractions, columns, 1)
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    wide = x.astype(jnp.int32)
    sums = jnp.int32(2 ** (_BITS - 1))
    for column, weight in zip(columns.T, weights.T, strict=True):
        sums = sums + jnp.take(wide, column, axis, mode="clip") * weight.reshape(shape)
    return jnp.clip(sums >> _BITS, 0, 255).astype(jnp.uint8)


def pixel_shuffle(x: Float[Array, "b h w c"], times: int) -> Float[Array, "b i j d"]:
    """Channels as pixels: `torch.nn.functional.pixel_shuffle`, of NHWC maps.

    Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
    Convolutional Neural Network, 2016, https://arxiv.org/abs/1609.05158.

    Args:
      x: maps, whose channels are a multiple of `times` squared.
      times: how much larger both sides become.
    """
    b, h, w, c = x.shape
    cells = x.reshape(b, h, w, c // times**2, times, times)
    return cells.transpose(0, 1, 4, 2, 5, 3).reshape(b, h * times, w * times, c // times**2)
