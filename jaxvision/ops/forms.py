"""One function in several forms, of which the platform's is chosen when it is lowered.

XLA's CPU backend runs some programs many times slower than others that compute the same. Here is
how an op gets a form for CPUs beside its plain one, and the two causes that all layers share:

- A sum over the batch is slow as a reduction and fast as a matrix product with ones.
- What several operations use is computed again inside each of them, also where that is a long
  chain or the reading order is bad. `in_memory` and `computed_once` stop that.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, ArrayLike, Float


def accumulable(x: Array) -> Array:
    """`x` in a precision to sum in: float32 at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


# What is traced is for: this process; a serialised program of several platforms; one of plain ops.
_purpose = ContextVar("purpose", default="here")


@contextmanager
def _traced_for(purpose: str) -> Iterator[None]:
    token = _purpose.set(purpose)
    try:
        yield
    finally:
        _purpose.reset(token)


def portable() -> AbstractContextManager[None]:
    """What is traced inside can be serialised (`jax.export`): no form fixes a layout in memory."""
    return _traced_for("program")


def plain() -> AbstractContextManager[None]:
    """What is traced inside has each op's plain form alone, and no layouts; for other runtimes."""
    return _traced_for("plain")


def is_plain() -> bool:
    """Whether what is traced is to be understood by other runtimes; see `plain`."""
    return _purpose.get() == "plain"


def chosen(
    *arrays: Any,
    cpu: Callable[..., Any],
    default: Callable[..., Any],
    plain: Callable[..., Any] | None = None,
) -> Any:
    """`cpu(*arrays)` on CPUs, `default(*arrays)` elsewhere, chosen when it is lowered.

    Inside `plain()` it is the form `plain` everywhere, `default` unless it is given.
    """
    if is_plain():
        return (plain or default)(*arrays)
    return lax.platform_dependent(*arrays, cpu=cpu, default=default)


def vary_alike(*arrays: ArrayLike) -> list[Array]:
    """Inside `shard_map`, marks all arrays as varying over the axes that any of them varies over.

    A gradient written by hand needs that: it makes a gradient per shard for what all shards share,
    and the transpose of the mark adds these up. Elsewhere it does nothing.
    """
    values = [jnp.asarray(x) for x in arrays]
    varying = [jax.typeof(x).manual_axis_type.varying for x in values]
    union = frozenset().union(*varying)
    return [
        lax.pcast(x, tuple(sorted(union - axes)), to="varying") if union - axes else x
        for x, axes in zip(values, varying, strict=True)
    ]


def per_platform(
    cpu: Callable[..., Array],
    default: Callable[..., Array],
    plain: Callable[..., Array] | None = None,
) -> Callable[..., Array]:
    """One op out of two forms of it, `form(static, *arrays)`: `cpu` on CPUs, `default` elsewhere.

    The forms must be equal functions; `static` is hashable. Of them `plain` is the one that other
    runtimes understand, `default` unless it is given. Differentiated as it is,
    `lax.platform_dependent` saves the residuals of both; here they are the op's arguments, and the
    backward pass chooses anew.
    """

    # Jitted, so that a network's equal layers trace and lower the forms once. What is traced
    # depends on the purpose; as an argument that is part of the cache's key.
    @partial(jax.jit, static_argnums=(0, 1))
    def forward(static, purpose, *arrays):
        return chosen(
            *arrays,
            cpu=partial(cpu, static),
            default=partial(default, static),
            plain=partial(plain or default, static),
        )

    @partial(jax.jit, static_argnums=(0, 1))
    def backward(static, purpose, arrays, cotangent):
        def pull(form):
            return lambda g, *arrays: jax.vjp(partial(form, static), *arrays)[1](g)

        return chosen(cotangent, *arrays, cpu=pull(cpu), default=pull(default))

    op = jax.custom_vjp(forward, nondiff_argnums=(0, 1))
    op.defvjp(lambda static, purpose, *arrays: (op(static, purpose, *arrays), arrays), backward)
    return lambda static, *arrays: op(static, _purpose.get(), *vary_alike(*arrays))


def _ones_product(_: None, x: Array) -> Array:
    x = accumulable(x)
    while x.ndim > 1:  # one axis at a time: long sums are less exact
        kept = tuple(range(x.ndim - 2))
        ones = jnp.ones(x.shape[:-1], x.dtype)
        x = lax.dot_general(ones, x, (((x.ndim - 2,), (x.ndim - 2,)), (kept, kept)))
    return x


def _batch_reduction(_: None, x: Array) -> Array:
    return jnp.sum(accumulable(x), tuple(range(x.ndim - 1)))


_channel_sum = per_platform(cpu=_ones_product, default=_batch_reduction)


def channel_sum(x: Float[Array, "*b c"]) -> Float[Array, " c"]:
    """The sum of each channel over everything else, in float32 at least."""
    return _channel_sum(None, x)


def sums(arrays: Sequence[Array], axes: Sequence[int]) -> list[Array]:
    """The sum of each array over the axes, in float32 at least; one pass adds up all of them.

    It has no gradient of its own.
    """
    values = [accumulable(x) for x in arrays]
    return lax.reduce(
        values,
        [jnp.zeros((), x.dtype) for x in values],
        lambda a, b: [u + v for u, v in zip(a, b, strict=True)],
        axes,
    )


def _row_by_row(*arrays: Array) -> tuple[Array, ...]:
    """`_ones_product` of the sums of a map's rows."""
    rows = sums(arrays, (arrays[0].ndim - 2,)) if arrays[0].ndim > 2 else arrays
    return tuple(_ones_product(None, x) for x in rows)


def _batch_reductions(*arrays: Array) -> tuple[Array, ...]:
    return tuple(_batch_reduction(None, x) for x in arrays)


@jax.custom_vjp
def channel_sums(*arrays: Float[Array, "*b c"]) -> tuple[Float[Array, " c"], ...]:
    """`channel_sum` of each of some maps of one shape, which are computed as they are added up.

    On CPUs `channel_sum` wants each in memory first, but is the faster one for rows of tokens.
    """
    return chosen(*arrays, cpu=_row_by_row, default=_batch_reductions)


def _sums_backward(arrays: tuple[Array, ...], g: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(
        jnp.broadcast_to(v, x.shape).astype(x.dtype) for x, v in zip(arrays, g, strict=True)
    )


channel_sums.defvjp(lambda *arrays: (channel_sums(*arrays), arrays), _sums_backward)


def _row_product(_: None, x: Array, weights: Array) -> Array:
    return accumulable(x) @ accumulable(weights)


def _row_reduction(_: None, x: Array, weights: Array) -> Array:
    return jnp.sum(accumulable(x) * weights, -1)


_weighted_sum = per_platform(cpu=_row_product, default=_row_reduction)


def weighted_sum(x: Float[Array, "*b c"], weights: Float[Array, " c"]) -> Float[Array, "*b"]:
    """The sum over the channels, each times its weight, in float32 at least."""
    return _weighted_sum(None, x, weights)


def _product_with_itself(_: None, x: Array) -> Array:
    axes, x = tuple(range(x.ndim)), accumulable(x)
    return lax.dot_general(x, x, ((axes, axes), ((), ())))


_square_sum = per_platform(
    cpu=_product_with_itself, default=lambda _, x: jnp.sum(jnp.square(accumulable(x)))
)


def square_sum(x: Float[Array, "..."]) -> Float[Array, ""]:
    """The sum of the squares of all elements, in float32 at least."""
    return _square_sum(None, x)


def in_memory(x: Array) -> Array:
    """`x` in memory, row by row, for its users to read.

    Without the layout the compiler may transpose it for a user already where it is computed, so
    that all is computed once more, in a bad order. XLA cannot partition a layout constraint, so
    there is none where there are several devices. Neither can it be serialised, see `portable`.
    """
    if is_plain():
        return x
    x = lax.optimization_barrier(x)
    if jax.device_count() > 1 or _purpose.get() == "program":
        return x
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))


@jax.custom_vjp
def _in_memory(x: Array) -> Array:
    return in_memory(x)


_in_memory.defvjp(lambda x: (in_memory(x), None), lambda _, g: (in_memory(g),))
_once = per_platform(cpu=lambda _, x: _in_memory(x), default=lambda _, x: x)


def computed_once(x: Array) -> Array:
    """`x`, which each of its users reads, and so does its gradient; for the CPU's compiler."""
    return _once(None, x)


# -- transposes and the processor's cache ---------------------------------------------------------
#
# A processor reads memory by lines of 64 bytes. A transpose reads many lines, a little of each, and
# comes back for the rest of them. They are fast if the lines are still in the cache by then: few
# lines at a time, and not those whose addresses are a power of two apart, which share a place in
# the cache and push each other out.

_LINE = 16  # float32 numbers in a line


def swapped_in_memory(x: Array) -> Array:
    """`x` [i, j, c, d] as [i, j, d, c], in memory: in two steps where d is large and divides."""
    *outer, c, d = x.shape
    if d < 256 or d % _LINE:
        return in_memory(jnp.swapaxes(x, 2, 3))
    blocks = in_memory(jnp.swapaxes(x.reshape(*outer, c, d // _LINE, _LINE), 2, 3))
    return in_memory(jnp.swapaxes(blocks, 3, 4).reshape(*outer, d, c))


def batch_parts(x: Array, g: Array) -> list[tuple[Array, Array]]:
    """A map [b, h, w, c] and a gradient as parts of the batch, to add up a kernel's gradient over.

    The products transpose both, and where a place's channels are a line or less eight samples at a
    time are faster. With several devices the partitioner would move samples between them, so there
    it is one part.
    """
    if x.shape[3] > _LINE or jax.device_count() > 1:
        return [(x, g)]
    count = max(1, x.shape[0] // 8)
    return list(zip(jnp.array_split(x, count), jnp.array_split(g, count), strict=True))
