"""A mean over many rows that is computed a part of the rows at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from jaxvision.losses.objective import Ratio
from jaxvision.ops.forms import vary_alike


def ratio_in_parts(
    mean: Callable[[Any, Any], Ratio],
    variables: Any,
    rows: Any,
    needed: Int[Array, ""],
    size: int,
) -> Ratio:
    """`mean(variables, rows)`, added up over parts of the first `needed` rows.

    The gradient of a part is computed with its value. So no more than a part is ever in memory, and
    rows beyond those that are needed cost nothing, though all shapes are fixed.

    Args:
      mean: of rows; it must add up over them, and rows of zeros must count in nothing.
      variables: a tree of floating arrays, by which it is differentiated.
      rows: a tree of arrays [b, n, ...], by which it is not.
      needed: how many rows count, of the image that has most.
      size: rows of a part.
    """
    count = jax.tree.leaves(rows)[0].shape[1]
    size = min(size, count)

    def filled(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, -count % size), *((0, 0),) * (x.ndim - 2)))

    leaves, tree = jax.tree.flatten((variables, jax.tree.map(filled, rows), needed))
    return _in_parts(mean, size, *jax.tree.unflatten(tree, vary_alike(*leaves)))


def _added_up(of_part: Callable[[Any], Any], rows: Any, needed: Int[Array, ""], size: int) -> Any:
    def part(index: Array | int) -> Any:
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, index * size, size, 1), rows)

    def add(index: Array, sums: Any) -> Any:
        return jax.tree.map(jnp.add, sums, of_part(part(index)))

    shapes = jax.eval_shape(lambda: of_part(part(0)))
    zeros, tree = jax.tree.flatten(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
    zeros = vary_alike(*zeros, needed)[:-1]
    return lax.fori_loop(0, -(-needed // size), add, jax.tree.unflatten(tree, zeros))


def _value(
    mean: Callable[[Any, Any], Ratio], size: int, variables: Any, rows: Any, needed: Array
) -> Ratio:
    return _added_up(lambda part: mean(variables, part), rows, needed, size)


def _forward(
    mean: Callable[[Any, Any], Ratio], size: int, variables: Any, rows: Any, needed: Array
) -> tuple[Ratio, Any]:
    def of_part(part: Any) -> tuple[Ratio, Any]:
        def total(variables: Any) -> tuple[Array, Ratio]:
            found = mean(variables, part)
            return found.total, found

        gradient, found = jax.grad(total, has_aux=True)(variables)
        return found, gradient

    return _added_up(of_part, rows, needed, size)


def _backward(
    mean: Callable[[Any, Any], Ratio], size: int, gradient: Any, wanted: Ratio
) -> tuple[Any, None, None]:
    return jax.tree.map(lambda x: (x * wanted.total).astype(x.dtype), gradient), None, None


_in_parts = jax.custom_vjp(_value, nondiff_argnums=(0, 1))
_in_parts.defvjp(_forward, _backward)
