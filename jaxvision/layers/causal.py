"""Attention to the tokens before: of whole sequences, or of one token after those of a cache.

Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from jaxvision.layers.transformer import attend

# Keys and values of the heads, [b, heads, n, d].
KeysValues = tuple[Float[Array, "b heads n d"], Float[Array, "b heads n d"]]


def by_heads(x: Float[Array, "b n c"], heads: int) -> Float[Array, "b heads n d"]:
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def attend_one(
    q: Float[Array, "n 1 c"], keys: KeysValues, heads: int, mask: Array | None = None
) -> tuple[Float[Array, "n 1 c"], Float[Array, "b heads g m"]]:
    """What one query of each sequence finds, and its weights; g sequences share an image's keys."""
    k, v = keys
    scaled = q.reshape(k.shape[0], -1, heads, k.shape[-1]).swapaxes(1, 2) * k.shape[-1] ** -0.5
    scores = jnp.einsum("bhgd,bhmd->bhgm", scaled, k, preferred_element_type=jnp.float32)
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    weights = jax.nn.softmax(scores)
    found = jnp.einsum("bhgm,bhmd->bhgd", weights.astype(v.dtype), v)
    return found.swapaxes(1, 2).reshape(q.shape), weights


def attend_before(
    module: nn.Module,
    qkv: Float[Array, "n t c3"],
    heads: int,
    dropout: float = 0.0,
    train: bool = False,
) -> Float[Array, "n t c"]:
    """What each token of whole sequences finds in itself and those before it.

    Args:
      module: that attends, inside its compact method; weights are recorded as `self_attention`.
      qkv: queries, keys and values of all heads.
      heads: how many.
      dropout: rate of dropout on the weights.
      train: whether it acts.
    """
    count, length, channels = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = (part.reshape(count, length, heads, -1) for part in jnp.split(qkv, 3, -1))
    seen = jnp.tril(jnp.ones((length, length), bool))
    bias = jnp.where(seen, 0.0, jnp.finfo(jnp.float32).min)[None, None]
    found = attend(module, q, k, v, bias, dropout, train, "self_attention")
    return found.reshape(count, length, channels)


def attend_past(
    qkv: Float[Array, "n 1 c3"], heads: int, past: KeysValues, position: int | Int[Array, ""]
) -> tuple[Float[Array, "n 1 c"], KeysValues]:
    """What one token finds in itself and those of the past, and the past with it.

    Args:
      qkv: the token's queries, keys and values of all heads.
      heads: how many.
      past: keys and values in arrays for all tokens.
      position: that of the token.
    """
    q, k, v = jnp.split(qkv, 3, -1)
    insert = partial(lax.dynamic_update_slice_in_dim, start_index=position, axis=2)
    past = insert(past[0], by_heads(k, heads)), insert(past[1], by_heads(v, heads))
    found, _ = attend_one(q, past, heads, jnp.arange(past[0].shape[2]) <= position)
    return found, past
