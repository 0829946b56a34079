"""Normalisation that has no parameters, of NHWC maps."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxvision.ops.forms import accumulable


def local_response_norm(
    x: Float[Array, "*b c"],
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    divide: bool = True,
) -> Float[Array, "*b c"]:
    """Divides each value by a power of the squares in the channels around it.

    Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012,
    section 3.3: `x / (k + alpha * sum of squares) ** beta`, there with k=2 and `divide=False`.

    The gradient is written by hand: it keeps the map and the denominator, and costs one more sum
    over the channels around.

    Args:
      x: activations, channels last.
      size: how many channels count, centred on the value's own; those beyond the ends are 0.
      alpha: factor of the sum.
      beta: the power.
      k: added to the sum.
      divide: whether alpha is divided by `size` first, as in PyTorch and Caffe and not in the
        paper: with `divide` the paper's constants act `size` times more weakly.
    """
    return _lrn(x, size, alpha / size if divide else alpha, beta, k)


def _around(x: Array, before: int, after: int) -> Array:
    """Sums each channel with the `before` channels below it and the `after` above it."""
    channels = x.shape[-1]
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)])
    parts = (lax.slice_in_dim(padded, i, i + channels, axis=-1) for i in range(before + after + 1))
    return sum(parts, jnp.zeros((), x.dtype))


def _power(base: Array, beta: float) -> Array:
    """`base ** -beta`; two square roots are several times faster than a logarithm and a power."""
    if beta == 0.75:
        root = lax.rsqrt(base)
        return root * jnp.sqrt(root)
    return base**-beta


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _lrn(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    return _lrn_forward(x, size, alpha, beta, k)[0]


def _lrn_forward(x, size, alpha, beta, k):
    x32 = accumulable(x)
    base = k + alpha * _around(jnp.square(x32), size // 2, (size - 1) // 2)
    return (x32 * _power(base, beta)).astype(x.dtype), (x, base)


def _lrn_backward(size, alpha, beta, k, residuals, g):
    x, base = residuals
    x32, g32, scale = accumulable(x), accumulable(g), _power(base, beta)
    shared = _around(g32 * x32 * scale / base, (size - 1) // 2, size // 2)
    return ((g32 * scale - 2 * alpha * beta * x32 * shared).astype(x.dtype),)


_lrn.defvjp(_lrn_forward, _lrn_backward)
