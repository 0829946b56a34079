"""Residual blocks in a row: stochastic depth, and equal blocks that are traced once for all."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxvision.errors import UserError

Tokens = Float[Array, "b n c"]
Checkpoint = Callable[[Callable[..., Any]], Callable[..., Any]]


class DropPath(nn.Module):
    """Drops whole samples of a residual branch, and scales up the others (stochastic depth).

    Huang et al., "Deep Networks with Stochastic Depth", 2016, https://arxiv.org/abs/1603.09382

    Attributes:
      rate: the probability that a sample is dropped; may be traced.
    """

    rate: float | Array = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], train: bool) -> Float[Array, "b ..."]:
        if not train or (isinstance(self.rate, (int, float)) and self.rate == 0):
            return x
        keep = 1 - jnp.asarray(self.rate, jnp.float32)
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        return jnp.where(kept, x / jnp.maximum(keep, 1e-6).astype(x.dtype), 0)


def drop_path_rates(depth: int, last: float) -> list[float]:
    """The probability that each of `depth` blocks drops a sample: from 0 linearly to `last`."""
    return [last * index / max(1, depth - 1) for index in range(depth)]


def kept_blocks(depth: int, chosen: Sequence[int] | None) -> tuple[int, ...]:
    """`chosen`, or the last block of each quarter.

    Raises:
      UserError: there is no such block.
    """
    if chosen is None:
        return tuple(sorted({max(0, depth * quarter // 4 - 1) for quarter in (1, 2, 3, 4)}))
    if wrong := [index for index in chosen if not 0 <= index < depth]:
        raise UserError(f"out_blocks has {wrong[0]}; the blocks are 0 to {depth - 1}.")
    return tuple(chosen)


def apply_blocks(
    module: nn.Module,
    block: Callable[..., nn.Module],
    depth: int,
    x: Tokens,
    train: bool,
    drop_path: float = 0.0,
    keep: Sequence[int] = (),
    scan: bool = False,
    remat: bool = False,
    more: Sequence[Array] = (),
) -> tuple[Tokens, list[Tokens]]:
    """Runs equal blocks one after the other, as `blocks_0`, `blocks_1`, ... of `module`.

    In training a block is traced once for all of them. With `scan` it is also compiled once, and
    runs over the stacked parameters of all, at the price of a copy of the parameters. Parameters
    and random numbers are the same either way. Where modules may do more than compute each block is
    called by itself: when they are initialised, record attention, or are looked into, which is
    never in training.

    Args:
      module: the network, inside its compact method.
      block: makes a block, which is called as `block(x, train, drop_path_rate, *more)`.
      depth: how many.
      x: tokens.
      train: whether dropout and stochastic depth act.
      drop_path: stochastic depth of the last block; earlier ones have linearly less.
      keep: the blocks whose outputs are returned too.
      scan: see above.
      remat: whether a block is computed again in the backward pass to save memory.
      more: what each block is given beside.

    Returns:
      The last output; those of `keep`.
    """
    rates = drop_path_rates(depth, drop_path)
    names = [f"blocks_{index}" for index in range(depth)]
    recording = any(map(module.is_mutable_collection, ("intermediates", "attention")))
    if module.is_initializing() or recording or not (scan or train):
        kept = []
        for index, (name, rate) in enumerate(zip(names, rates, strict=True)):
            x = block(name=name)(x, train, rate, *more)
            if index in keep:
                kept.append(x)
        return x, kept

    one = block(parent=None)
    layers: list[Any] = [module.get_variable("params", name) for name in names]
    keys = None
    if train and module.has_rng("dropout"):
        keys = jax.random.split(module.make_rng("dropout"), depth)

    def body(x: Array, params: Any, rate: ArrayLike, key: Array | None) -> Array:
        rngs = {} if key is None else {"dropout": key}
        rate = rate if drop_path else 0.0
        y = one.apply({"params": params}, x, train, rate, *more, rngs=rngs)
        assert isinstance(y, jax.Array)  # nothing is mutable
        return y

    checkpoint = jax.checkpoint if remat else lambda function: function
    if scan:
        return _scan(body, checkpoint, x, layers, rates, keys, keep)
    return _unroll(body, checkpoint, x, layers, rates, keys, keep)


def _scan(
    body: Callable[..., Array],
    checkpoint: Checkpoint,
    x: Tokens,
    layers: Sequence[Any],
    rates: Sequence[float],
    keys: Array | None,
    keep: Sequence[int],
) -> tuple[Tokens, list[Tokens]]:
    """Runs blocks as one loop over their stacked parameters."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)

    def step(x: Array, layer: Any) -> tuple[Array, Array | None]:
        y = body(x, *layer)
        return y, y if keep else None

    x, outputs = jax.lax.scan(checkpoint(step), x, (stacked, jnp.asarray(rates), keys))
    return x, [outputs[index] for index in keep]


def _unroll(
    body: Callable[..., Array],
    checkpoint: Checkpoint,
    x: Tokens,
    layers: Sequence[Any],
    rates: Sequence[float],
    keys: Array | None,
    keep: Sequence[int],
) -> tuple[Tokens, list[Tokens]]:
    """Runs blocks as calls of one jitted function, which is traced once."""
    run, kept = jax.jit(checkpoint(body)), []
    for index, (params, rate) in enumerate(zip(layers, rates, strict=True)):
        with jax.named_scope(f"blocks_{index}"):
            x = run(x, params, rate, None if keys is None else keys[index])
        if index in keep:
            kept.append(x)
    return x, kept
