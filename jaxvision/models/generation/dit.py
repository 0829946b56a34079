"""DiT: Peebles and Xie, Scalable Diffusion Models with Transformers, 2022.

https://arxiv.org/abs/2212.09748. Reference: `DiT` of tests/parity/networks/dit.py, written from the
paper, with the parameters of facebookresearch/DiT. Here it looks at pixels; the paper's latents are
images of four channels, of which it says noise and variance: `out_channels=8`.

Deviations: none in what is computed. Where labels are dropped in training is the task's concern.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from jaxvision.errors import UserError
from jaxvision.layers.blocks import apply_blocks
from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import layer_norm
from jaxvision.layers.parameters import parameter
from jaxvision.layers.patches import from_patches, patch_grid
from jaxvision.layers.positions import Grid, sincos_positions
from jaxvision.layers.timesteps import every_image, timestep_embedding
from jaxvision.layers.transformer import Attention, Mlp, PatchEmbed
from jaxvision.models.variant import Variant

_EPSILON = 1e-6
_TIME_CHANNELS = 256
_uniform = nn.initializers.xavier_uniform()
_normal = nn.initializers.normal(0.02)
_zeros = nn.initializers.zeros
_gelu = partial(jax.nn.gelu, approximate=True)
# Of patches as of a linear layer on their pixels.
_patches = nn.initializers.variance_scaling(
    1.0, "fan_avg", "uniform", in_axis=(0, 1, 2), out_axis=3
)


def _modulated(
    x: Float[Array, "b n c"], shift: Float[Array, "b c"], scale: Float[Array, "b c"]
) -> Float[Array, "b n c"]:
    """Layer norm whose scale and shift are each image's own."""
    ones, zeros = jnp.ones(x.shape[-1]), jnp.zeros(x.shape[-1])
    return layer_norm(x, ones, zeros, _EPSILON) * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    """Attention and MLP on residual branches that the condition modulates, at first to 0.

    Attributes:
      num_heads: of the attention.
      mlp_ratio: hidden channels of the MLP over the width.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    num_heads: int
    mlp_ratio: float = 4.0
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        train: bool,
        drop_path: float,
        condition: Float[Array, "b c"],
    ) -> Float[Array, "b n c"]:
        """Computes; `condition` is activated already. No path is dropped."""
        width = x.shape[-1]
        modulation = Dense(
            6 * width, dtype=self.dtype, kernel_init=_zeros, name="adaLN_modulation_1"
        )
        parts = jnp.split(modulation(condition), 6, axis=-1)
        attention = Attention(self.num_heads, dtype=self.dtype, kernel_init=_uniform, name="attn")
        hidden = int(width * self.mlp_ratio)
        mlp = Mlp(hidden, _gelu, dtype=self.dtype, kernel_init=_uniform, name="mlp")
        x = x + parts[2][:, None] * attention(_modulated(x, parts[0], parts[1]), train)
        return x + parts[5][:, None] * mlp(_modulated(x, parts[3], parts[4]), train)


class FinalLayer(nn.Module):
    """The pixels of each patch, by a linear layer on modulated tokens.

    Attributes:
      features: pixels of a patch, times their channels.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n c"], condition: Float[Array, "b c"]
    ) -> Float[Array, "b n d"]:
        dense = partial(Dense, dtype=self.dtype, kernel_init=_zeros)
        modulation = dense(2 * x.shape[-1], name="adaLN_modulation_1")(condition)
        shift, scale = jnp.split(modulation, 2, axis=-1)
        return dense(self.features, name="linear")(_modulated(x, shift, scale))


class DiT(nn.Module):
    """What noise there is in images, or what else it is trained to say of them, [b, h, w, c].

    Attributes:
      patch_size: side of a patch; the image's sides must be multiples of it.
      width: channels of a token.
      depth: how many blocks.
      num_heads: attention heads of a block.
      mlp_ratio: hidden channels of the MLPs over the width.
      classes: how many the images may be of; 0 is none.
      out_channels: of the output; None is those of the image.
      scan: compile one block that runs over the stacked parameters of all.
      remat: recompute each block in the backward pass to save memory.
      dtype: what is computed in, but for the embeddings of time and class; None is what input and
        parameters promote to.
    """

    patch_size: int = 2
    width: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: float = 4.0
    classes: int = 0
    out_channels: int | None = None
    scan: bool = False
    remat: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b h w c"],
        timestep: Int[Array, "*b"] | int = 0,
        label: Int[Array, " b"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b h w d"]:
        """Looks at images with noise.

        Args:
          image: in -1..1 before noise was added.
          timestep: how noisy each is, or all are.
          label: the class of each; `classes`, or None, is none.
          train: not used; there is no dropout.

        Raises:
          UserError: the image does not divide into patches, or a label is given to a network
            without classes.
        """
        grid = patch_grid(image.shape, self.patch_size)
        embed = PatchEmbed(
            self.patch_size, self.width, dtype=self.dtype, kernel_init=_patches, name="x_embedder"
        )
        x = embed(image)
        x = x + self._positions(grid).astype(x.dtype)
        condition = nn.silu(self._condition(image.shape[0], timestep, label))
        block = partial(Block, self.num_heads, self.mlp_ratio, self.dtype)
        x, _ = apply_blocks(
            self, block, self.depth, x, train, scan=self.scan, remat=self.remat, more=(condition,)
        )
        channels = self.out_channels or image.shape[-1]
        last = FinalLayer(self.patch_size**2 * channels, self.dtype, name="final_layer")
        return from_patches(last(x, condition), grid, self.patch_size)

    def _positions(self, grid: Grid) -> Float[Array, "1 n c"]:
        """Those of the file, or sines and cosines; they are not learnt."""

        def start(*_: Any) -> Float[Array, "1 n c"]:
            return jnp.asarray(sincos_positions(grid, self.width, endpoint=False))[None]

        shape = (1, grid[0] * grid[1], self.width)
        return lax.stop_gradient(parameter(self, "pos_embed", start, shape))

    def _condition(
        self, images: int, timestep: Int[Array, "*b"] | int, label: Int[Array, " b"] | None
    ) -> Float[Array, "b c"]:
        """The sum of the embeddings of time and class, float32."""
        time = timestep_embedding(
            every_image(timestep, images), _TIME_CHANNELS, endpoint=False, cosines_first=True
        )
        dense = partial(Dense, self.width, kernel_init=_normal)
        condition = dense(name="t_embedder.mlp_2")(nn.silu(dense(name="t_embedder.mlp_0")(time)))
        if not self.classes:
            if label is not None:
                raise UserError("This network knows no classes: make it with classes=N.")
            return condition
        if label is None:
            label = jnp.full((images,), self.classes)
        table = nn.Embed(
            self.classes + 1, self.width, embedding_init=_normal, name="y_embedder.embedding_table"
        )
        return condition + table(label)


def _dit(width: int, depth: int, num_heads: int) -> Variant:
    return Variant(
        DiT,
        {"width": width, "depth": depth, "num_heads": num_heads},
        "tests/parity/networks/dit.py DiT(), as facebookresearch/DiT",
        (32, 32, 3),
        "Peebles and Xie 2022, https://arxiv.org/abs/2212.09748",
        inputs=("image", "timestep", "label"),
        first="x_embedder.proj",
    )


# With patches of two pixels; `patch_size` gives those of four and eight.
VARIANTS = {
    "dit_s": _dit(384, 12, 6),
    "dit_b": _dit(768, 12, 12),
    "dit_l": _dit(1024, 24, 16),
    "dit_xl": _dit(1152, 28, 16),
}
