"""What the tokens of a vision transformer attend to."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.intermediates import intermediates
from jaxvision.ops.windows import pair


def attention_maps(
    module: nn.Module, variables: Mapping[str, Any], image: Float[Array, "h w c"]
) -> list[Float[Array, "heads n n"]]:
    """Attention weights of the blocks, first to last: rows are queries and sum to one.

    Args:
      module: a network of `layers.transformer.Attention`, called as `module(images, train=False)`.
      variables: of it.
      image: normalised.

    Raises:
      UserError: the network has no attention, or attends within windows only.
    """
    maps = intermediates(module, variables, image[None], ("attention",))["attention"]
    if len({value.shape[-2:] for value in maps}) > 1 or any(len(value) > 1 for value in maps):
        raise UserError(
            f"{type(module).__name__} attends within windows, so there is no map of the whole "
            "image; grad-cam and saliency are for every network."
        )
    return [value[0].astype(jnp.float32) for value in maps]


def attention_rollout(maps: Sequence[Float[Array, "heads n n"]]) -> Float[Array, "n n"]:
    """How much each token of the last block draws on each token of the input; rows sum to one.

    The product over the blocks of (A + I) / 2, where A is the mean over the heads and I is the
    residual connection: Abnar and Zuidema, Quantifying Attention Flow in Transformers, 2020,
    https://arxiv.org/abs/2005.00928.

    Args:
      maps: of the blocks, first to last.
    """
    joint = jnp.eye(maps[0].shape[-1])
    for weights in maps:
        mixed = weights.mean(0) + jnp.eye(weights.shape[-1])
        mixed = mixed / mixed.sum(-1, keepdims=True)
        joint = jnp.matmul(mixed, joint, precision=jax.lax.Precision.HIGHEST)
    return joint


def over_patches(
    weights: Float[Array, "*heads n n"], module: nn.Module, image_shape: Sequence[int]
) -> Float[Array, "*heads rows columns"]:
    """What the class token attends to, laid out over the patches of the image.

    Tokens before the patches (class, distillation) are left out. Without any, it is the mean over
    the patches' rows.

    Args:
      weights: of `attention_maps`, or `attention_rollout`.
      module: the network, which has a `patch_size`.
      image_shape: [h, w, c].

    Raises:
      UserError: the tokens are no patches of the image.
    """
    size = pair(getattr(module, "patch_size", 0) or 1)
    rows, columns = (side // patch for side, patch in zip(image_shape, size))
    prefix = weights.shape[-1] - rows * columns
    if prefix < 0:
        raise UserError(f"{weights.shape[-1]} tokens are not {rows}x{columns} patches.")
    row = weights[..., 0, prefix:] if prefix else weights.mean(-2)
    return row.reshape(*row.shape[:-1], rows, columns)
