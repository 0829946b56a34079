"""BEiT: Bao et al., BERT Pre-Training of Image Transformers, 2021.

https://arxiv.org/abs/2106.08254. Reference: `timm.models.beit.Beit`, the classifier: a ViT whose
blocks have relative position biases in place of position embeddings, biases on queries and values
alone, and layer scale; it is the mean of the patches, not the class token, that is classified.
"""

import re
from functools import partial
from typing import get_args

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from jaxvision.errors import unknown
from jaxvision.layers.blocks import DropPath
from jaxvision.layers.head import Head
from jaxvision.layers.intermediates import record
from jaxvision.layers.normalization import LayerNorm
from jaxvision.layers.parameters import parameter
from jaxvision.layers.patches import (
    PatchNetwork,
    as_map,
    patch_grid,
    prepend_tokens,
    run_blocks,
)
from jaxvision.layers.positions import (
    Grid,
    Interpolation,
    offsets,
    relative_bias,
    resize_relative_bias,
    stored_grid,
)
from jaxvision.layers.transformer import Attention, Mlp, PatchEmbed
from jaxvision.models.transformers_names import from_transformers, is_transformers
from jaxvision.models.variant import Variant
from jaxvision.state_dict import Shapes, StateDict

_TABLE = "relative_position_bias_table"
_SHARED = f"rel_pos_bias.{_TABLE}"
_PRETRAINING = ("lm_head.", "norm.", "mask_token")


class BeitBlock(nn.Module):
    """Attention with relative biases and an MLP, each scaled channel by channel.

    Attributes:
      grid: rows and columns of the patches.
      table_grid: the grid that the tables of biases are made for; see `stored_grid`.
      interpolation: of these, see `resize_relative_bias`.
      init_values: what the layer scales start from.
      shared_bias: whether all blocks are given one bias, and have no tables of their own.
    """

    num_heads: int
    grid: Grid
    table_grid: Grid | None = None
    interpolation: Interpolation = "geometric"
    init_values: float = 0.1
    dropout: float = 0.0
    dtype: jnp.dtype | None = None
    shared_bias: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        train: bool,
        drop_path: float | Array = 0.0,
        bias: Float[Array, "heads n n"] | None = None,
    ) -> Float[Array, "b n c"]:
        def residual(branch: Array, name: str) -> Array:
            start = nn.initializers.constant(self.init_values)
            gamma = parameter(self, name, start, (x.shape[-1],))
            return x + DropPath(drop_path)(branch * gamma.astype(branch.dtype), train)

        norm = partial(LayerNorm, dtype=self.dtype)
        attention = Attention(
            self.num_heads,
            qkv_bias="qv",
            window=None if self.shared_bias else self.grid,
            class_token=True,
            table_window=self.table_grid,
            interpolation=self.interpolation,
            out_dropout=self.dropout,
            dtype=self.dtype,
            name="attn",
        )
        shared = None if bias is None else bias[None]
        x = residual(attention(norm(name="norm1")(x), train, shared), "gamma_1")
        mlp = Mlp(4 * x.shape[-1], dropout=self.dropout, dtype=self.dtype, name="mlp")
        return residual(mlp(norm(name="norm2")(x), train), "gamma_2")


class SharedBias(nn.Module):
    """The relative position biases of all blocks; attributes as of `BeitBlock`."""

    num_heads: int
    grid: Grid
    table_grid: Grid | None = None
    interpolation: Interpolation = "geometric"

    @nn.compact
    def __call__(self) -> Float[Array, "heads n n"]:
        of_table = (self.table_grid, self.interpolation)
        return relative_bias(self, self.grid, self.num_heads, True, *of_table)


class Beit(PatchNetwork):
    """The classifier. Images may have any size that divides into patches.

    Attributes, beside those of `PatchNetwork`:
      num_heads: attention heads of a block.
      init_values: what the layer scales start from.
      grid: rows and columns of patches that the tables of biases are of; without it those of the
        image at initialisation, and where they must be resized, a square.
      interpolation: how they are resized: "geometric", as in timm, or "bilinear", as in
        transformers.
      shared_bias: whether all blocks have one table of biases, as in pre-training.
    """

    num_heads: int = 12
    init_values: float = 0.1
    grid: Grid | None = None
    interpolation: Interpolation = "geometric"
    shared_bias: bool = False

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b h w c"],
        train: bool = False,
        hidden: Bool[Array, "b n"] | None = None,
        mask_token: Float[Array, " d"] | None = None,
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        """Computes.

        Args:
          image: normalised images.
          train: whether dropout and stochastic depth act.
          hidden: patches whose embeddings `mask_token` replaces; None is none.
          mask_token: see `hidden`.
        """
        if self.interpolation not in get_args(Interpolation):
            raise unknown("interpolation", self.interpolation, get_args(Interpolation))
        grid = patch_grid(image.shape, self.patch_size)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        patches = PatchEmbed(self.patch_size, self.width, dtype=self.dtype, name="patch_embed")
        embedded = patches(image)
        if hidden is not None and mask_token is not None:
            embedded = jnp.where(hidden[..., None], mask_token.astype(embedded.dtype), embedded)
        tokens = drop(prepend_tokens(self, ("cls_token",), embedded))
        of_biases = (self.num_heads, grid, self.grid, self.interpolation)
        block = partial(
            BeitBlock,
            *of_biases,
            self.init_values,
            self.dropout,
            self.dtype,
            self.shared_bias,
        )
        biases = (SharedBias(*of_biases, name="rel_pos_bias")(),) if self.shared_bias else ()
        x, kept = run_blocks(self, block, tokens, train, more=biases)
        if self.features_only:
            return tuple(as_map(tokens, grid, 1) for tokens in kept)
        record(self, "tokens", x)
        if self.tokens_only:
            return x
        x = LayerNorm(dtype=self.dtype, name="fc_norm")(x[:, 1:].mean(1))
        return Head(self.num_classes, dtype=self.dtype, name="head")(drop(x))


def convert(state: StateDict) -> StateDict:
    """Transformers' names are brought to timm's, and indices of older files left out.

    Of what was pre-trained to say hidden tokens, the encoder is left.
    """
    if is_transformers(state):
        state = from_transformers(state)
    if "lm_head.weight" in state:
        state = {n: v for n, v in state.items() if not n.startswith(_PRETRAINING)}
    return {n: v for n, v in state.items() if not n.endswith("relative_position_index")}


def resize(
    state: StateDict,
    shapes: Shapes,
    grid: Grid | None,
    interpolation: Interpolation = "geometric",
) -> StateDict:
    """A state_dict whose tables of relative biases fit the wanted grids.

    What was pre-trained is fine-tuned as by the authors: one table of all blocks is given to each
    where each has its own, and the norm before the classifier, which there was none of, is fresh.

    Raises:
      UserError: tables of a grid that is not known; see `stored_grid`.
    """
    resized = {}
    state = _for_fine_tuning(state, shapes)
    for name, value in state.items():
        wanted = shapes.get(name)
        if name.endswith(_TABLE) and wanted and wanted != value.shape:
            new = stored_grid(wanted[0] - 3, declared=grid, count=offsets)
            table = resize_relative_bias(
                jnp.asarray(value), new, class_token=True, interpolation=interpolation
            )
            resized[name] = np.asarray(table)
    return state | resized


def _for_fine_tuning(state: StateDict, shapes: Shapes) -> StateDict:
    found = dict(state)
    if _SHARED in found and _SHARED not in shapes:
        table = found.pop(_SHARED)
        wanted = (n for n in shapes if n.endswith(f".attn.{_TABLE}") and n not in state)
        found |= dict.fromkeys(wanted, table)
    if not any(name.startswith(("head.", "fc_norm.")) for name in state):
        for name, value in (("fc_norm.weight", 1), ("fc_norm.bias", 0)):
            if name in shapes:
                found[name] = np.full(shapes[name], value, np.float32)
    return found


_SIZES = {"base": (768, 12, 12, 0.1), "large": (1024, 24, 16, 1e-5)}


def _beit(name: str) -> Variant:
    size, patch, side = re.findall(r"_([a-z]+)_patch(\d+)_(\d+)", name)[0]
    width, depth, heads, scale = _SIZES[size]
    return Variant(
        Beit,
        {
            "width": width,
            "depth": depth,
            "num_heads": heads,
            "patch_size": int(patch),
            "init_values": scale,
        },
        f"timm {name}",
        (int(side), int(side), 3),
        "Bao et al. 2021, https://arxiv.org/abs/2106.08254",
        classifier=("head",),
        first="patch_embed.proj",
        convert=convert,
        resize=resize,
    )


VARIANTS = {
    name: _beit(name)
    for name in (
        "beit_base_patch16_224",
        "beit_base_patch16_384",
        "beit_large_patch16_224",
        "beit_large_patch16_384",
        "beit_large_patch16_512",
    )
}
