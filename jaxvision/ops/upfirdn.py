"""Resampling by short filters: zeros between pixels, a filter, and every so-manieth pixel of it."""

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.errors import UserError


def upfirdn2d(
    x: Float[Array, "b h w c"],
    taps: Sequence[float],
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
) -> Float[Array, "b oh ow c"]:
    """Each pixel followed by `up - 1` zeros, padded, convolved, every `down`-th pixel of it.

    The filter is the outer product of `taps` with themselves, each channel is filtered alone, and
    both axes one after the other; no product with a zero between pixels is computed. Karras et al.,
    Analyzing and improving the image quality of StyleGAN, 2020, https://arxiv.org/abs/1912.04958,
    whose `upfirdn_2d` this is.

    Args:
      x: images or maps.
      taps: of the filter along one axis; a convolution, so the last one meets the first pixel.
      up: zeros are put in where it is above 1.
      down: pixels are left out where it is above 1; only one of both may be.
      padding: zeros before and after each axis, of what `up` has made; negative ones cut off.

    Raises:
      UserError: both `up` and `down` are above 1, or nothing is left.
    """
    if min(up, down) < 1 or (up > 1 and down > 1):
        raise UserError(f"upfirdn2d goes up or down; got up={up}, down={down}.")
    for axis in (1, 2):
        x = _along(x, tuple(taps)[::-1], up, down, padding, axis)
    return x


def _along(
    x: Array, taps: tuple[float, ...], up: int, down: int, padding: tuple[int, int], axis: int
) -> Array:
    """One axis, by taps in the order in which they meet the pixels."""
    size = x.shape[axis]
    count = (size * up + sum(padding) - len(taps)) // down + 1
    if count < 1:
        raise UserError(f"Nothing is left of {size} pixels with {len(taps)} taps, {padding=}.")
    if up == 1:
        offsets = [(tap, place - padding[0]) for place, tap in enumerate(taps)]
        return _sum_of_shifts(x, offsets, count, down, axis)
    phases = []
    for phase in range(up):
        # Of the pixels that this phase's outputs see, only each `up`-th is none of the zeros.
        seen = [(tap, phase + place - padding[0]) for place, tap in enumerate(taps)]
        offsets = [(tap, place // up) for tap, place in seen if place % up == 0]
        phases.append(_sum_of_shifts(x, offsets, -(-count // up), 1, axis))
    both = jnp.stack(phases, axis + 1)
    merged = both.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
    return jax.lax.slice_in_dim(merged, 0, count, axis=axis)


def _sum_of_shifts(
    x: Array, offsets: Sequence[tuple[float, int]], count: int, stride: int, axis: int
) -> Array:
    """`sum tap * x[stride * i + offset]` of i below `count`; what is outside is 0."""
    size, last = x.shape[axis], stride * (count - 1)
    before = max(0, -min(offset for _, offset in offsets))
    after = max(0, max(offset for _, offset in offsets) + last + 1 - size)
    widths = [(0, 0)] * x.ndim
    widths[axis] = (before, after)
    padded = jnp.pad(x, widths)
    cuts = [
        tap * jax.lax.slice_in_dim(padded, start, start + last + 1, stride, axis)
        for tap, start in ((tap, offset + before) for tap, offset in offsets)
    ]
    return reduce(jnp.add, cuts)
