"""MLP-Mixer: Tolstikhin et al., An all-MLP Architecture for Vision, 2021.

https://arxiv.org/abs/2105.01601. Reference: `timm.models.mlp_mixer.MlpMixer`.
"""

import re
from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.head import Head
from jaxvision.layers.normalization import LayerNorm
from jaxvision.layers.transformer import DropPath, Mlp, PatchEmbed, apply_blocks
from jaxvision.models.backbones.vit import as_map, kept_blocks, patch_grid
from jaxvision.models.variant import Variant


class MixerBlock(nn.Module):
    """An MLP over the tokens of each channel, then one over the channels of each token."""

    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n c"], train: bool, drop_path: float | Array = 0.0
    ) -> Float[Array, "b n c"]:
        def residual(norm: str, mlp: str, hidden: int, across_tokens: bool) -> Array:
            y = LayerNorm(dtype=self.dtype, name=norm)(x)
            y = y.swapaxes(1, 2) if across_tokens else y
            y = Mlp(hidden, dropout=self.dropout, dtype=self.dtype, name=mlp)(y, train)
            y = y.swapaxes(1, 2) if across_tokens else y
            return x + DropPath(drop_path)(y, train)

        width = x.shape[-1]
        x = residual("norm1", "mlp_tokens", width // 2, True)
        return residual("norm2", "mlp_channels", 4 * width, False)


class MlpMixer(nn.Module):
    """Patches, mixer blocks, a norm, the mean over tokens, a linear layer.

    The number of patches is part of its parameters, so images have the size that it was made for.

    Attributes:
      drop_path: stochastic depth of the last block; earlier ones have linearly less.
      scan, remat, features_only, out_blocks: as in `vit.VisionTransformer`.
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
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        grid = patch_grid(image.shape, self.patch_size)
        x, kept = apply_blocks(
            self,
            partial(MixerBlock, self.dropout, self.dtype),
            self.depth,
            PatchEmbed(self.patch_size, self.width, dtype=self.dtype, name="stem")(image),
            train,
            drop_path=self.drop_path,
            keep=kept_blocks(self.depth, self.out_blocks) if self.features_only else (),
            scan=self.scan,
            remat=self.remat,
        )
        if self.features_only:
            return tuple(as_map(tokens, grid, 0) for tokens in kept)
        x = LayerNorm(dtype=self.dtype, name="norm")(x).mean(1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Head(self.num_classes, dtype=self.dtype, name="head")(x)


_SIZES = {"s": (512, 8), "b": (768, 12), "l": (1024, 24)}


def _mixer(name: str) -> Variant:
    size, patch = re.findall(r"_([a-z])(\d+)_", name)[0]
    width, depth = _SIZES[size]
    return Variant(
        MlpMixer,
        {"width": width, "depth": depth, "patch_size": int(patch)},
        f"timm {name}",
        paper="Tolstikhin et al. 2021, https://arxiv.org/abs/2105.01601",
        classifier=("head",),
        first="stem.proj",
    )


VARIANTS = {
    name: _mixer(name)
    for name in (f"mixer_{size}{patch}_224" for size in _SIZES for patch in (32, 16))
}
