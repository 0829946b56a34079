"""Networks over the patches of an image: what vision transformers and mixers share."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.blocks import apply_blocks, kept_blocks
from jaxvision.layers.parameters import parameter


class PatchNetwork(nn.Module):
    """The fields of a network of equal blocks over patches.

    Attributes:
      num_classes: length of the output; 0 gives the head's input.
      patch_size: side of a patch; the image's sides must be multiples of it.
      width: channels of a token.
      depth: how many blocks.
      dropout: rate in the embedding, the projections and before the head.
      drop_path: stochastic depth of the last block; earlier ones have linearly less.
      scan: compile one block that runs over the stacked parameters of all.
      remat: recompute each block in the backward pass to save memory.
      features_only: return the maps [b, h, w, c] that the blocks of `out_blocks` put out.
      out_blocks: their indices; None is the end of each quarter of the depth.
      tokens_only: return the tokens [b, n, c] of the last block, after the last norm, if any.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    num_classes: int = 1000
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = False
    remat: bool = False
    features_only: bool = False
    out_blocks: Sequence[int] | None = None
    tokens_only: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        return (self.patch_size,) * len(kept_blocks(self.depth, self.out_blocks))


def run_blocks(
    network: PatchNetwork,
    block: Callable[..., nn.Module],
    x: Float[Array, "b n c"],
    train: bool,
    more: Sequence[Array] = (),
) -> tuple[Float[Array, "b n c"], list[Float[Array, "b n c"]]]:
    """Runs a network's blocks as its fields say: the last output, those of `out_blocks`.

    Args: see `apply_blocks`.
    """
    return apply_blocks(
        network,
        block,
        network.depth,
        x,
        train,
        drop_path=network.drop_path,
        keep=kept_blocks(network.depth, network.out_blocks) if network.features_only else (),
        scan=network.scan,
        remat=network.remat,
        more=more,
    )


def patch_grid(shape: Sequence[int], patch: int) -> tuple[int, int]:
    """Rows and columns of the patches of images [b, h, w, c].

    Raises:
      UserError: the images do not divide into patches.
    """
    if any(side % patch for side in shape[1:3]):
        raise UserError(
            f"Images of {shape[1]}x{shape[2]} do not divide into patches of "
            f"{patch}x{patch}; resize or pad them to a multiple."
        )
    return shape[1] // patch, shape[2] // patch


def prepend_tokens(
    module: nn.Module, names: Sequence[str], x: Float[Array, "b n c"]
) -> Float[Array, "b m c"]:
    """Puts learned tokens, parameters of `module`, before the others."""
    normal = nn.initializers.normal(1e-6)
    if not names:
        return x
    tokens = [parameter(module, name, normal, (1, 1, x.shape[-1])) for name in names]
    tokens = [jnp.tile(token, (x.shape[0], 1, 1)).astype(x.dtype) for token in tokens]
    return jnp.concatenate([*tokens, x], axis=1)


def as_map(tokens: Float[Array, "b n c"], grid: tuple[int, int], prefix: int = 0) -> Array:
    """Tokens as a map [b, h, w, c], without the first `prefix`."""
    return tokens[:, prefix:].reshape(tokens.shape[0], *grid, -1)


def to_patches(image: Float[Array, "b h w c"], patch: int) -> Float[Array, "b n d"]:
    """The pixels of each patch, row by row and the channels of a pixel together.

    Raises:
      UserError: the images do not divide into patches.
    """
    rows, columns = patch_grid(image.shape, patch)
    cut = image.reshape(image.shape[0], rows, patch, columns, patch, image.shape[-1])
    return cut.swapaxes(2, 3).reshape(image.shape[0], rows * columns, -1)


def from_patches(
    patches: Float[Array, "b n d"], grid: tuple[int, int], patch: int
) -> Float[Array, "b h w c"]:
    """The image of the pixels of its patches; the inverse of `to_patches`."""
    pixels = patches.reshape(patches.shape[0], *grid, patch, patch, -1).swapaxes(2, 3)
    return pixels.reshape(patches.shape[0], grid[0] * patch, grid[1] * patch, -1)
