"""Masked autoencoder: He et al., Masked Autoencoders Are Scalable Vision Learners, 2021.

https://arxiv.org/abs/2111.06377. References: transformers' `ViTMAEForPreTraining`, and the authors'
`MaskedAutoencoderViT` (facebookresearch/mae), whose files have other names. Here the encoder has
timm's names below `encoder`, and the decoder its own below `decoder`; `convert` brings both of the
others to these. Norms have the authors' epsilon, 1e-6; the configurations on the Hub say 1e-12.
Positions are fixed, but stored, as in both references; they count as parameters.
"""

import re
from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxvision.layers.blocks import apply_blocks
from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import LayerNorm
from jaxvision.layers.parameters import parameter
from jaxvision.layers.patches import patch_grid
from jaxvision.layers.positions import Grid, fixed_positions
from jaxvision.layers.transformer import TransformerBlock
from jaxvision.models.captioning.transformer import resize_encoder
from jaxvision.models.transformers_names import from_transformers, is_transformers
from jaxvision.models.variant import Variant
from jaxvision.state_dict import StateDict, renamed

_xavier = nn.initializers.xavier_uniform()


class MaskedDecoder(nn.Module):
    """Blocks over the tokens of patches that were seen and a learned token for all others.

    Attributes:
      features: values to say of each patch.
      width: channels of a token.
      depth: how many blocks.
      num_heads: attention heads of a block.
      norm_epsilon: of the layer norms.
      scan, remat: see `PatchNetwork`.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    features: int
    width: int
    depth: int
    num_heads: int
    norm_epsilon: float = 1e-6
    scan: bool = False
    remat: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "b m c"], kept: Int[Array, "b k"], grid: Grid, train: bool
    ) -> Float[Array, "b n d"]:
        """Says what each patch is.

        Args:
          tokens: those without a place, then of the patches that were seen.
          kept: which patches these are.
          grid: rows and columns of all patches.
          train: of the blocks.
        """
        dense = partial(Dense, dtype=self.dtype, kernel_init=_xavier)
        x = dense(self.width, name="embed")(tokens)
        prefix = x.shape[1] - kept.shape[1]
        normal = nn.initializers.normal(0.02)
        mask_token = parameter(self, "mask_token", normal, (1, 1, self.width)).astype(x.dtype)
        is_token = kept[:, None] == jnp.arange(grid[0] * grid[1])[:, None]
        places = prefix + jnp.argmax(is_token, axis=-1)
        seen = jnp.take_along_axis(x, places[..., None], axis=1)
        patches = jnp.where(is_token.any(-1)[..., None], seen, mask_token)
        x = jnp.concatenate([x[:, :prefix], patches], axis=1)
        x = x + fixed_positions(self, "pos_embed", grid, self.width, prefix).astype(x.dtype)
        block = partial(
            TransformerBlock,
            num_heads=self.num_heads,
            epsilon=self.norm_epsilon,
            dtype=self.dtype,
            kernel_init=_xavier,
        )
        x, _ = apply_blocks(self, block, self.depth, x, train, scan=self.scan, remat=self.remat)
        x = LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm")(x)
        return dense(self.features, name="pred")(x[:, prefix:])


class MaskedAutoencoder(nn.Module):
    """A vision transformer that sees some patches of an image, and a decoder that says all.

    Attributes:
      encoder: gives tokens of the patches that it is told to see, as `vit_...` do.
      width, depth, num_heads: of the decoder; see `MaskedDecoder`.
      norm_epsilon, scan, remat, dtype: of the decoder.
    """

    METHOD: ClassVar[str] = "mae"
    ENCODER_END: ClassVar[str] = "tokens"

    encoder: Any = None
    width: int = 512
    depth: int = 8
    num_heads: int = 16
    norm_epsilon: float = 1e-6
    scan: bool = False
    remat: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b h w c"],
        kept: Int[Array, "b k"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b n d"]:
        """The values of each patch, as `layers.patches.to_patches` orders them.

        Args:
          image: normalised images.
          kept: the patches that the encoder sees; None is all.
          train: whether dropout acts, if the encoder has any.
        """
        patch = self.encoder.patch_size
        grid = patch_grid(image.shape, patch)
        if kept is None:
            kept = jnp.tile(jnp.arange(grid[0] * grid[1]), (image.shape[0], 1))
        decoder = MaskedDecoder(
            patch**2 * image.shape[-1],
            self.width,
            self.depth,
            self.num_heads,
            self.norm_epsilon,
            self.scan,
            self.remat,
            self.dtype,
            name="decoder",
        )
        return decoder(self.encoder(image, train, kept), kept, grid, train)

    def encode(self, image: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b m c"]:
        """The encoder's tokens of whole images."""
        return self.encoder(image, train)


_AUTHORS = (
    (r"^mask_token$", "decoder.mask_token"),
    (r"^decoder_", "decoder."),
    (r"^(?!decoder\.)", "encoder."),
)
_DECODER = re.compile(r"^decoder\.(decoder_)?")


def convert(state: StateDict) -> StateDict:
    """State_dicts of transformers and of the authors by our names; others unchanged."""
    if is_transformers(state):
        parts: dict[str, StateDict] = {"encoder": {}, "decoder": {}}
        for name, value in state.items():
            inner, decodes = _DECODER.subn("", name)
            parts["decoder" if decodes else "encoder"][inner] = value
        return {
            f"{part}.{name}": value
            for part, own in parts.items()
            for name, value in from_transformers(own).items()
        }
    return renamed(state, _AUTHORS) if "patch_embed.proj.weight" in state else state


def _mae(encoder: str) -> Variant:
    options = {"positions": "fixed", "kernel_init": "xavier"}
    side = 224
    return Variant(
        MaskedAutoencoder,
        {"encoder": encoder, "encoder_options": options},
        "transformers ViTMAEForPreTraining",
        (side, side, 3),
        "He et al. 2021, https://arxiv.org/abs/2111.06377",
        first="encoder.patch_embed.proj",
        convert=convert,
        resize=resize_encoder,
    )


VARIANTS = {
    f"mae_{encoder}": _mae(encoder)
    for encoder in ("vit_base_patch16_224", "vit_large_patch16_224", "vit_huge_patch14_224")
}
