"""MLP-Mixer: Tolstikhin et al., An all-MLP Architecture for Vision, 2021.

https://arxiv.org/abs/2105.01601. Reference: `timm.models.mlp_mixer.MlpMixer`.
"""

import re
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.blocks import DropPath
from jaxvision.layers.head import Head
from jaxvision.layers.intermediates import record
from jaxvision.layers.normalization import LayerNorm
from jaxvision.layers.patches import PatchNetwork, as_map, patch_grid, run_blocks
from jaxvision.layers.transformer import Mlp, PatchEmbed
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


class MlpMixer(PatchNetwork):
    """Patches, mixer blocks, a norm, the mean over tokens, a linear layer.

    The number of patches is part of its parameters, so images have the size that it was made for.

    Attributes: those of `PatchNetwork`.
    """

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        grid = patch_grid(image.shape, self.patch_size)
        patches = PatchEmbed(self.patch_size, self.width, dtype=self.dtype, name="stem")
        block = partial(MixerBlock, self.dropout, self.dtype)
        x, kept = run_blocks(self, block, patches(image), train)
        if self.features_only:
            return tuple(as_map(tokens, grid) for tokens in kept)
        x = LayerNorm(dtype=self.dtype, name="norm")(x)
        record(self, "tokens", x)
        if self.tokens_only:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean(1))
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
