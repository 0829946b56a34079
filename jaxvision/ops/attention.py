"""Attention of vision transformers: all tokens to all tokens."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.ops.forms import computed_once, per_platform
from jaxvision.ops.linear import add_bias


def _default(_: None, q: Array, k: Array, v: Array, *bias: Array) -> Array:
    tiled = [jnp.tile(b, (q.shape[0] // b.shape[0], 1, 1, 1)) if len(b) > 1 else b for b in bias]
    return jax.nn.dot_product_attention(q, k, v, *tiled)


def _by_heads(_: None, q: Array, k: Array, v: Array, *bias: Array) -> Array:
    """Heads beside the batch, so that all products are of contiguous matrices."""
    q, k, v = (computed_once(jnp.swapaxes(x, 1, 2)) for x in (q, k, v))
    logits = jnp.einsum("bhnd,bhmd->bhnm", q, k, preferred_element_type=jnp.float32)
    logits *= q.shape[-1] ** -0.5
    for added in bias:
        added = jnp.broadcast_to(added, (len(added), *logits.shape[1:]))
        logits = add_bias(logits.reshape(-1, added.size), added.reshape(-1)).reshape(logits.shape)
    weights = jax.nn.softmax(logits).astype(v.dtype)
    return jnp.swapaxes(jnp.einsum("bhnm,bhmd->bhnd", weights, v), 1, 2)


_attention = per_platform(cpu=_by_heads, default=_default)


def dot_product_attention(
    q: Float[Array, "b n heads d"],
    k: Float[Array, "b m heads d"],
    v: Float[Array, "b m heads d"],
    bias: Float[Array, " windows #heads n m"] | None = None,
) -> Float[Array, "b n heads d"]:
    """`softmax(q k^T / sqrt(d) + bias) v` for each head; the softmax is in float32.

    Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762

    Args:
      q, k, v: queries, keys and values.
      bias: added to the logits; if it is for fewer than the batch, it is repeated: its n-th is for
        every n-th of the batch.
    """
    return _attention(None, q, k, v, *(() if bias is None else (bias,)))
