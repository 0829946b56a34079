"""Pooling and unpooling of NHWC maps with the semantics of PyTorch.

Sizes, padding, `ceil_mode` and ties are PyTorch's: the first maximum of a window, row by row,
takes the whole gradient. As in `jaxvision.ops.convolution` the form is chosen per platform.
"""

from collections.abc import Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Num

from jaxvision.ops.forms import accumulable, per_platform
from jaxvision.ops.windows import Pair, Window, overlap_add, pair, window_taps


def _window(
    map_size: Sequence[int],
    window: Pair,
    stride: Pair | None,
    padding: Pair,
    ceil_mode: bool,
    dilation: Pair = 1,
) -> Window:
    """PyTorch's windows: `ceil_mode` keeps those that run over the end but do not start there."""
    size, before, rates = pair(window), pair(padding), pair(dilation)
    step = size if stride is None else pair(stride)
    if any(2 * p > k for p, k in zip(before, size, strict=True)):
        raise ValueError(f"Padding {before} is more than half of the window {size}.")
    after, spans = [], [(k - 1) * d + 1 for k, d in zip(size, rates, strict=True)]
    for n, k, s, p in zip(map_size, spans, step, before, strict=True):
        count = (n + 2 * p - k) // s + 1
        if ceil_mode and (n + 2 * p - k) % s and count * s < n + p:
            count += 1
        if count < 1:
            raise ValueError(f"A window of {size} does not fit a map of {map_size}.")
        after.append((count - 1) * s + k - n - p)
    # What no window reaches is neither padded nor cropped.
    pads = tuple((p, max(a, 0)) for p, a in zip(before, after, strict=True))
    return Window(size, step, rates, pads)


def _lowest(dtype: jnp.dtype) -> float | int:
    return -np.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


def _reduce_window(window: Window, x: Array, initial: float | int, operation) -> Array:
    return lax.reduce_window(
        x,
        np.asarray(initial, x.dtype),  # a traced one would hide the monoid, and its gradient
        operation,
        (1, *window.size, 1),
        (1, *window.stride, 1),
        ((0, 0), *window.padding, (0, 0)),
        window_dilation=(1, *window.dilation, 1),
    )


def _max_plain(window: Window, x: Array) -> Array:
    if window.dilation != (1, 1):
        return _max_dilated(window, x)
    return _reduce_window(window, x, _lowest(x.dtype), lax.max)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _max_taps(window: Window, x: Array) -> Array:
    return reduce(jnp.maximum, window_taps(x, window, _lowest(x.dtype)))


def _max_taps_forward(window: Window, x: Array) -> tuple[Array, tuple]:
    best, *others = window_taps(x, window, _lowest(x.dtype))
    winner = jnp.zeros(best.shape, jnp.int8 if len(others) < 128 else jnp.int32)
    for n, tap in enumerate(others, start=1):
        better = tap > best
        best = jnp.where(better, tap, best)
        winner = jnp.where(better, jnp.asarray(n, winner.dtype), winner)
    return _max_taps(window, x), (winner, x.shape[1:3])


def _max_taps_backward(window: Window, residuals: tuple, g: Array) -> tuple[Array]:
    winner, size = residuals
    winner, g = lax.optimization_barrier((winner, g))

    def won(n: int, winner: Array, g: Array) -> Array:
        return jnp.where(winner == n, g, 0)

    return (overlap_add(won, [winner, g], window, size),)


_max_taps.defvjp(_max_taps_forward, _max_taps_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _max_dilated(window: Window, x: Array) -> Array:
    return _reduce_window(window, x, _lowest(x.dtype), lax.max)


# XLA has no gradient of windows with holes.
_max_dilated.defvjp(
    lambda window, x: (_max_dilated(window, x), x),
    lambda window, x, g: jax.vjp(partial(_max_taps, window), x)[1](g),
)
_max_pool = per_platform(cpu=_max_taps, default=_max_plain, plain=_max_taps)


def _sum_plain(window: Window, x: Array) -> Array:
    return _reduce_window(window, x, 0, lax.add)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum_taps(window: Window, x: Array) -> Array:
    return reduce(jnp.add, window_taps(x, window))


_sum_taps.defvjp(
    lambda window, x: (_sum_taps(window, x), x.shape[1:3]),
    lambda window, size, g: (overlap_add(lambda n, g: g, [g], window, size),),
)
_sum_pool = per_platform(cpu=_sum_taps, default=_sum_plain, plain=_sum_taps)


def max_pool2d(
    x: Num[Array, "b h w c"],
    window: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    dilation: Pair = 1,
) -> Num[Array, "b oh ow c"]:
    """The maximum of each window; NaN if there is one in it.

    Args:
      x: the map.
      window: the window's size, one number or (rows, columns).
      stride: of the windows; their size by default.
      padding: on both sides, with what no maximum can be; at most half the window.
      ceil_mode: whether a last window that runs over the end counts.
      dilation: the distance between the places that a window takes the maximum of.
    """
    return _max_pool(_window(x.shape[1:3], window, stride, padding, ceil_mode, dilation), x)


def max_pool2d_with_indices(
    x: Num[Array, "b h w c"],
    window: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
) -> tuple[Num[Array, "b oh ow c"], Int[Array, "b oh ow c"]]:
    """`max_pool2d`, and where in the map each maximum is: `row * w + column`, as in PyTorch.

    A window with a NaN has the index of its last NaN.
    """
    form = _window(x.shape[1:3], window, stride, padding, ceil_mode)
    height, width = x.shape[1:3]
    places = jnp.arange(height * width, dtype=jnp.int32).reshape(1, height, width, 1)
    taps = window_taps(lax.stop_gradient(x), form, _lowest(x.dtype))
    best, index = taps[0], jnp.int32(-1)
    for tap, place in zip(taps, window_taps(places, form, -1), strict=True):
        # The first place that is not padding starts: a window of nothing but -inf has an index.
        better = (place >= 0) & ((index < 0) | (tap > best) | jnp.isnan(tap))
        best, index = jnp.where(better, tap, best), jnp.where(better, place, index)
    return _max_pool(form, x), index


def avg_pool2d(
    x: Float[Array, "b h w c"],
    window: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Float[Array, "b oh ow c"]:
    """The mean of each window.

    Args:
      x: the map.
      window: the window's size, one number or (rows, columns).
      stride: of the windows; their size by default.
      padding: on both sides, with zeros; at most half the window.
      ceil_mode: whether a last window that runs over the end counts; what lies beyond the padding
        is never part of the mean.
      count_include_pad: whether the padding's zeros are part of the mean.
    """
    form = _window(x.shape[1:3], window, stride, padding, ceil_mode)
    counts = []
    for axis, n in enumerate(x.shape[1:3]):
        k, s, before = form.size[axis], form.stride[axis], form.padding[axis][0]
        start = np.arange(form.output_size(x.shape[1:3])[axis]) * s - before
        low, high = (-before, n + before) if count_include_pad else (0, n)
        counts.append(np.minimum(start + k, high) - np.maximum(start, low))
    divisor = (counts[0][:, None] * counts[1])[..., None]
    tiles = form.size == form.stride and form.padding == ((0, 0), (0, 0))
    total = (_sum_plain if tiles else _sum_pool)(form, accumulable(x))
    return (total / divisor).astype(x.dtype)


def adaptive_avg_pool2d(x: Float[Array, "b h w c"], output_size: Pair) -> Float[Array, "b oh ow c"]:
    """The mean over PyTorch's bins, which share a row or column where the sizes do not divide.

    Bin i of n over a side of s is from floor(i * s / n) to ceil((i + 1) * s / n); a map smaller
    than `output_size` is enlarged by repetition.

    Args:
      x: the map.
      output_size: the height and width of the result.
    """
    y = accumulable(x)
    for axis, (side, bins) in enumerate(zip(x.shape[1:3], pair(output_size), strict=True), start=1):
        if side == bins:
            continue
        start = np.arange(bins) * side // bins
        end = -(-(np.arange(bins) + 1) * side // bins)
        place = np.arange(side)
        inside = (start[:, None] <= place) & (place < end[:, None])
        weights = jnp.asarray(inside / (end - start)[:, None], y.dtype)
        y = jnp.tensordot(y, weights, ((axis,), (1,)), precision=lax.Precision.HIGHEST)
        y = jnp.moveaxis(y, -1, axis)
    return y.astype(x.dtype)


def global_average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """The mean over each map, accumulated in float32."""
    return jnp.mean(x, axis=(1, 2))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _unpool(y: Array, indices: Array, size: tuple[int, int]) -> Array:
    def place(y, indices):
        empty = jnp.zeros((size[0] * size[1], y.shape[-1]), y.dtype)
        return empty.at[indices, jnp.arange(y.shape[-1])].set(y)

    batch, _, _, channels = y.shape
    flat = (batch, -1, channels)
    return jax.vmap(place)(y.reshape(flat), indices.reshape(flat)).reshape(batch, *size, channels)


def _unpool_backward(size: tuple[int, int], indices: Array, g: Array) -> tuple[Array, None]:
    batch, _, _, channels = g.shape
    flat = (batch, -1, channels)
    dy = jnp.take_along_axis(g.reshape(flat), indices.reshape(flat), axis=1)
    return dy.reshape(indices.shape), None


_unpool.defvjp(lambda y, indices, size: (_unpool(y, indices, size), indices), _unpool_backward)


def max_unpool2d(
    y: Float[Array, "b oh ow c"], indices: Int[Array, "b oh ow c"], output_size: Pair
) -> Float[Array, "b h w c"]:
    """Puts each value at its index of a map of zeros: `torch.nn.MaxUnpool2d`.

    Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014,
    https://arxiv.org/abs/1311.2901

    Args:
      y: the values.
      indices: where they go, as `max_pool2d_with_indices` gives them. If windows overlap and
        share an index, they must share the value too.
      output_size: the height and width of the result.
    """
    return _unpool(y, indices, pair(output_size))
