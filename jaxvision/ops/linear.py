"""Products with a matrix of parameters."""

from functools import partial

import jax
from jax import lax
from jaxtyping import Array, Float

from jaxvision.ops.forms import channel_sum, in_memory, per_platform, vary_alike


def _product(_: None, x: Array, kernel: Array) -> Array:
    return x @ kernel


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product_on_cpu(_: None, x: Array, kernel: Array) -> Array:
    return x @ kernel


def _product_backward(_: None, residuals: tuple, g: Array) -> tuple[Array, Array]:
    # Both products want g and one of them x transposed: to be copied, not computed again.
    x, kernel = residuals
    x, g = in_memory(x), in_memory(g)
    axes = tuple(range(x.ndim - 1))
    dx = lax.dot_general(g, kernel, (((g.ndim - 1,), (1,)), ((), ())))
    return dx, lax.dot_general(x, g, ((axes, axes), ((), ())))


_product_on_cpu.defvjp(
    lambda _, x, kernel: (_product_on_cpu(None, x, kernel), (x, kernel)), _product_backward
)
_matmul = per_platform(cpu=_product_on_cpu, default=_product)


def matmul(x: Float[Array, "*b i"], kernel: Float[Array, "i o"]) -> Float[Array, "*b o"]:
    """`x @ kernel`, with the gradients in the form that is fastest on the platform."""
    return _matmul(None, x, kernel)


@jax.custom_vjp
def _add_bias(x: Array, bias: Array) -> Array:
    return x + bias


_add_bias.defvjp(
    lambda x, bias: (x + bias, bias),
    lambda bias, g: (g, channel_sum(g).astype(bias.dtype)),
)


def add_bias(x: Float[Array, "*b c"], bias: Float[Array, " c"]) -> Float[Array, "*b c"]:
    """`x + bias`; the gradient of the bias is a `channel_sum`."""
    return _add_bias(*vary_alike(x, bias))
