"""Vision Transformer: Dosovitskiy et al., An Image is Worth 16x16 Words, 2020.

https://arxiv.org/abs/2010.11929. DeiT, with its distillation token: Touvron et al., Training
data-efficient image transformers & distillation through attention, 2020,
https://arxiv.org/abs/2012.12877.

References: `timm.models.vision_transformer.VisionTransformer` and
`timm.models.deit.VisionTransformerDistilled`. State_dicts of torchvision's `vit_b_16` ..., of
transformers and of lucidrains/vit-pytorch are brought to timm's names by `convert`.
"""

import re
from collections.abc import Callable, Collection
from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Initializer
from jaxtyping import Array, Float, Int

from jaxvision.errors import unknown
from jaxvision.layers.head import Head
from jaxvision.layers.intermediates import record
from jaxvision.layers.normalization import LayerNorm
from jaxvision.layers.patches import (
    PatchNetwork,
    as_map,
    patch_grid,
    prepend_tokens,
    run_blocks,
)
from jaxvision.layers.positions import (
    Grid,
    fixed_positions,
    learned_positions,
    resample_positions,
    sincos_positions,
    stored_grid,
)
from jaxvision.layers.transformer import PatchEmbed, TransformerBlock, gelu
from jaxvision.models.moco_names import backbone_of_moco
from jaxvision.models.transformers_names import from_transformers, is_transformers
from jaxvision.models.variant import Form, Variant
from jaxvision.state_dict import Shapes, StateDict, renamed

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"gelu": gelu, "relu": nn.relu}
_CHOICES: dict[str, Collection[str]] = {
    "activation": _ACTIVATIONS,
    "pool": ("token", "mean"),
    "positions": ("learned", "sincos", "fixed"),
    "kernel_init": ("normal", "xavier"),
}
# Of the projection of patches, which counts as a linear layer, and of the blocks.
_INITIALISERS: dict[str, tuple[Initializer, Initializer]] = {
    "normal": (nn.initializers.lecun_normal(), nn.initializers.truncated_normal(0.02)),
    "xavier": (
        nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=(-4, -3, -2)),
        nn.initializers.xavier_uniform(),
    ),
}
Output = Float[Array, "b k"] | dict[str, Float[Array, "b k"]] | tuple[Float[Array, "b h w c"], ...]


class VisionTransformer(PatchNetwork):
    """Patches, a class token, learned positions, pre-norm blocks, a linear head on the token.

    Images may have any size that divides into patches: positions that were made for another grid
    are resampled. A distilled network returns the mean of its two heads, and in training a dict of
    `logits` (class token) and `distilled` (distillation token).

    Attributes, beside those of `PatchNetwork`:
      num_heads: attention heads of a block.
      head_dim: channels of one attention head (None: width / num_heads).
      mlp_ratio: hidden channels of the MLP over the width.
      activation: of the MLP, "gelu" (exact) or "relu".
      qkv_bias: whether queries, keys and values have biases.
      norm_epsilon: of the layer norms.
      distilled: whether there is a distillation token, with a head of its own.
      pool: what is classified: the class "token", or the "mean" of the patches, without a token.
      grid: rows and columns of patches that the learned positions are of; without it those of the
        image at initialisation, and where they must be resampled, a square.
      positions: "learned"; or "sincos", which are fixed and have no parameters (Beyer et al. 2022,
        https://arxiv.org/abs/2205.01580, for both); or "fixed", MAE's, of the same names as learned
        ones.
      kernel_init: how patches and blocks start: by a truncated "normal" distribution, or "xavier",
        by uniform ones (Glorot and Bengio 2010), as MAE's.
    """

    num_heads: int = 12
    head_dim: int | None = None
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    qkv_bias: bool = True
    norm_epsilon: float = 1e-6
    distilled: bool = False
    pool: str = "token"
    grid: Grid | None = None
    positions: str = "learned"
    kernel_init: str = "normal"

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b h w c"],
        train: bool = False,
        kept: Int[Array, "b k"] | None = None,
    ) -> Output:
        """Computes.

        Args:
          image: normalised images.
          train: whether dropout acts, and a distilled network returns both heads.
          kept: which patches of each image the blocks see, in any order; None is all. Tokens of
            `tokens_only` are then as many. Maps want all.
        """
        for field, choices in _CHOICES.items():
            if (value := getattr(self, field)) not in choices:
                raise unknown(field, value, choices)
        grid = patch_grid(image.shape, self.patch_size)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        names = ["cls_token"] * (self.pool == "token") + ["dist_token"] * self.distilled
        of_patches, of_blocks = _INITIALISERS[self.kernel_init]
        patches = PatchEmbed(
            self.patch_size,
            self.width,
            dtype=self.dtype,
            kernel_init=of_patches,
            name="patch_embed",
        )
        x = prepend_tokens(self, names, patches(image))
        if self.positions == "sincos":
            fixed = jnp.asarray(sincos_positions(grid, self.width))
            positions = jnp.pad(fixed, ((len(names), 0), (0, 0)))[None]
        else:
            stored = learned_positions if self.positions == "learned" else fixed_positions
            positions = stored(self, "pos_embed", grid, self.width, len(names), self.grid)
        x = x + positions.astype(x.dtype)
        if kept is not None:
            seen = jnp.take_along_axis(x, len(names) + kept[..., None], axis=1)
            x = jnp.concatenate([x[:, : len(names)], seen], axis=1)
        block = partial(
            TransformerBlock,
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            mlp_ratio=self.mlp_ratio,
            act=_ACTIVATIONS[self.activation],
            qkv_bias=self.qkv_bias,
            epsilon=self.norm_epsilon,
            out_dropout=self.dropout,
            dtype=self.dtype,
            kernel_init=of_blocks,
        )
        x, maps = run_blocks(self, block, drop(x), train)
        if self.features_only:
            return tuple(as_map(tokens, grid, len(names)) for tokens in maps)
        x = LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm")(x)
        record(self, "tokens", x)
        if self.tokens_only:
            return x
        head = partial(Head, self.num_classes, dtype=self.dtype)
        pooled = x[:, 0] if self.pool == "token" else x.mean(1)
        logits = head(name="head")(drop(pooled))
        if not self.distilled:
            return logits
        distilled = head(name="head_dist")(drop(x[:, 1]))
        if train and self.num_classes:
            return {"logits": logits, "distilled": distilled}
        return (logits + distilled) / 2


def resize_positions(state: StateDict, shapes: Shapes, grid: Grid | None, prefix: int) -> StateDict:
    """A state_dict whose `pos_embed` is resampled to the wanted number of tokens.

    Raises:
      UserError: positions of a grid that is not known; see `stored_grid`.
    """
    wanted, found = shapes.get("pos_embed"), state.get("pos_embed")
    if wanted is None or found is None or wanted == found.shape:
        return state
    new = stored_grid(wanted[1] - prefix, declared=grid)
    return state | {"pos_embed": np.asarray(resample_positions(jnp.asarray(found), new, prefix))}


_VIT_PYTORCH = (
    (r"^pos_embedding$", "pos_embed"),
    (r"^to_patch_embedding\.1\.", "patch_embed.proj."),
    (r"^transformer\.layers\.(\d+)\.0\.norm\.", r"blocks.\1.norm1."),
    (r"^transformer\.layers\.(\d+)\.0\.fn\.to_qkv\.", r"blocks.\1.attn.qkv."),
    (r"^transformer\.layers\.(\d+)\.0\.fn\.to_out\.0\.", r"blocks.\1.attn.proj."),
    (r"^transformer\.layers\.(\d+)\.1\.norm\.", r"blocks.\1.norm2."),
    (r"^transformer\.layers\.(\d+)\.1\.fn\.net\.0\.", r"blocks.\1.mlp.fc1."),
    (r"^transformer\.layers\.(\d+)\.1\.fn\.net\.3\.", r"blocks.\1.mlp.fc2."),
    (r"^mlp_head\.0\.", "norm."),
    (r"^mlp_head\.1\.", "head."),
)


def from_vit_pytorch(state: StateDict) -> StateDict:
    """A state_dict of lucidrains/vit-pytorch by timm's names; others are returned unchanged.

    Its patch embedding is a linear layer on patches flattened as (row, column, channel), which is a
    convolution once its weight [width, p * p * c] is given back its axes. Its grid of patches must
    be square and its images grey or colour, which decides p.
    """
    if "to_patch_embedding.1.weight" not in state:
        return state
    out = renamed(state, _VIT_PYTORCH)
    weight = out["patch_embed.proj.weight"]
    width, size = weight.shape
    channels = 1 if round(size**0.5) ** 2 == size else 3
    side = round((size / channels) ** 0.5)
    out["patch_embed.proj.weight"] = weight.reshape(width, side, side, channels).transpose(
        0, 3, 1, 2
    )
    return out


_TORCHVISION = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
    (r"\.mlp\.linear_(\d)\.", r".mlp.fc\1."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
)


def convert(state: StateDict) -> StateDict:
    """State_dicts of the other libraries by timm's names; others unchanged.

    Of a masked autoencoder the encoder is left.
    """
    if {"decoder_embed.weight", "decoder.decoder_embed.weight"} & state.keys():
        state = {n: v for n, v in state.items() if not n.startswith(("decoder", "mask_token"))}
    if "conv_proj.weight" in state:
        return renamed(state, _TORCHVISION)
    if is_transformers(state):
        return from_transformers(state)
    return from_vit_pytorch(backbone_of_moco(state))


_TO_TORCHVISION = (
    (r"^cls_token$", "class_token"),
    (r"^patch_embed\.proj\.", "conv_proj."),
    (r"^pos_embed$", "encoder.pos_embedding"),
    (r"^norm\.", "encoder.ln."),
    (r"^head\.", "heads.head."),
    (r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
    (r"\.norm(\d)\.", r".ln_\1."),
    (r"\.attn\.qkv\.", ".self_attention.in_proj_"),
    (r"\.attn\.proj\.", ".self_attention.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
)


def to_torchvision(state: StateDict) -> StateDict:
    """A state_dict of ours by torchvision's names."""
    return renamed(state, _TO_TORCHVISION)


_IN_TORCHVISION = {
    f"vit_{size}_patch{patch}_224": f"vit_{size[0]}_{patch}"
    for size, patch in (
        ("base", 16),
        ("base", 32),
        ("large", 16),
        ("large", 32),
        ("huge", 14),
    )
}


def _vit(name: str, *, paper: str = "", distilled: bool = False) -> Variant:
    theirs = _IN_TORCHVISION.get(name)
    size, patch, side = re.findall(r"_([a-z]+)(?:_distilled)?_patch(\d+)_(\d+)", name)[0]
    width, depth, heads = _SIZES[size]
    options = {"width": width, "depth": depth, "num_heads": heads, "patch_size": int(patch)}
    return Variant(
        VisionTransformer,
        options | ({"distilled": True} if distilled else {}),
        f"timm {name}",
        (int(side), int(side), 3),
        paper or "Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929",
        classifier=("head", "head_dist") if distilled else ("head",),
        first="patch_embed.proj",
        convert=convert,
        resize=partial(resize_positions, prefix=2 if distilled else 1),
        forms=(Form("torchvision", theirs, to_torchvision),) if theirs else (),
    )


_SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
_TOUVRON = "Touvron et al. 2020, https://arxiv.org/abs/2012.12877"

VARIANTS = {
    **{
        name: _vit(name)
        for name in (
            "vit_tiny_patch16_224",
            "vit_tiny_patch16_384",
            "vit_small_patch32_224",
            "vit_small_patch16_224",
            "vit_small_patch16_384",
            "vit_base_patch32_224",
            "vit_base_patch16_224",
            "vit_base_patch16_384",
            "vit_small_patch8_224",
            "vit_base_patch8_224",
            "vit_large_patch32_224",
            "vit_large_patch16_224",
            "vit_large_patch16_384",
            "vit_huge_patch14_224",
        )
    },
    **{
        f"deit_{size}_patch16_224": _vit(f"deit_{size}_patch16_224", paper=_TOUVRON)
        for size in ("tiny", "small", "base")
    },
    **{
        f"deit_{size}_distilled_patch16_224": _vit(
            f"deit_{size}_distilled_patch16_224", paper=_TOUVRON, distilled=True
        )
        for size in ("tiny", "small", "base")
    },
    "vit_mnist": Variant(
        VisionTransformer,
        {
            "patch_size": 4,
            "width": 64,
            "depth": 6,
            "num_heads": 4,
            "head_dim": 64,
            "mlp_ratio": 2.0,
            "activation": "relu",
            "qkv_bias": False,
            "norm_epsilon": 1e-5,
        },
        "researchase/vit-mnist-explorations (lucidrains/vit-pytorch)",
        (28, 28, 1),
        "Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929",
        classifier=("head",),
        first="patch_embed.proj",
        convert=convert,
        resize=partial(resize_positions, prefix=1),
    ),
}
