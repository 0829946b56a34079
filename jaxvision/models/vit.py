"""Vision Transformer: Dosovitskiy et al., An Image is Worth 16x16 Words, 2020.

https://arxiv.org/abs/2010.11929. Reference: `timm.models.vision_transformer.VisionTransformer`;
state_dicts of lucidrains/vit-pytorch are converted by `from_vit_pytorch`.
"""

import re
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError, unknown
from jaxvision.layers.normalization import LayerNorm
from jaxvision.layers.transformer import PatchEmbed, TransformerBlock, gelu
from jaxvision.models.variant import StateDict, Variant

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"gelu": gelu, "relu": nn.relu}


class VisionTransformer(nn.Module):
    """Patches, a class token, learned positions, pre-norm blocks, a linear head on the token.

    Attributes:
      patch_size: side of a patch; the image's sides must be multiples of it.
      head_dim: channels of one attention head (None: width / num_heads).
      activation: of the MLP, "gelu" (exact) or "relu".
      drop_path: stochastic depth of the last block; earlier ones have linearly less.
      remat: recompute each block in the backward pass to save memory.
    """

    num_classes: int = 1000
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    head_dim: int | None = None
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    qkv_bias: bool = True
    norm_epsilon: float = 1e-6
    dropout: float = 0.0
    drop_path: float = 0.0
    remat: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b k"]:
        if self.activation not in _ACTIVATIONS:
            raise unknown("activation", self.activation, _ACTIVATIONS)
        if any(side % self.patch_size for side in image.shape[1:3]):
            raise UserError(
                f"Images of {image.shape[1]}x{image.shape[2]} do not divide into patches of "
                f"{self.patch_size}x{self.patch_size}; resize or pad them to a multiple."
            )
        batch = image.shape[0]
        x = PatchEmbed(self.patch_size, self.width, dtype=self.dtype, name="patch_embed")(image)
        token = self.param("cls_token", nn.initializers.zeros, (1, 1, self.width))
        x = jnp.concatenate([jnp.tile(token, (batch, 1, 1)).astype(x.dtype), x], axis=1)
        positions = self.param("pos_embed", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = nn.Dropout(self.dropout, deterministic=not train)(x + positions.astype(x.dtype))
        block = nn.remat(TransformerBlock, static_argnums=(2,)) if self.remat else TransformerBlock
        for index in range(self.depth):
            x = block(
                num_heads=self.num_heads,
                head_dim=self.head_dim,
                mlp_ratio=self.mlp_ratio,
                act=_ACTIVATIONS[self.activation],
                qkv_bias=self.qkv_bias,
                epsilon=self.norm_epsilon,
                out_dropout=self.dropout,
                drop_path=self.drop_path * index / max(1, self.depth - 1),
                dtype=self.dtype,
                name=f"blocks_{index}",
            )(x, train)
        x = LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm")(x)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x[:, 0])


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
    out = {}
    for name, value in state.items():
        for pattern, replacement in _VIT_PYTORCH:
            name = re.sub(pattern, replacement, name)
        out[name] = value
    weight = out["patch_embed.proj.weight"]
    width, size = weight.shape
    channels = 1 if round(size**0.5) ** 2 == size else 3
    side = round((size / channels) ** 0.5)
    out["patch_embed.proj.weight"] = weight.reshape(width, side, side, channels).transpose(
        0, 3, 1, 2
    )
    return out


def _vit(width: int, depth: int, heads: int, patch: int, timm_name: str) -> Variant:
    options = {"width": width, "depth": depth, "num_heads": heads, "patch_size": patch}
    return Variant(VisionTransformer, options, f"timm {timm_name}", (224, 224, 3), from_vit_pytorch)


VARIANTS = {
    name: _vit(*shape, name)
    for name, shape in {
        "vit_tiny_patch16_224": (192, 12, 3, 16),
        "vit_small_patch16_224": (384, 12, 6, 16),
        "vit_base_patch16_224": (768, 12, 12, 16),
        "vit_large_patch16_224": (1024, 24, 16, 16),
    }.items()
} | {
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
        from_vit_pytorch,
    ),
}
