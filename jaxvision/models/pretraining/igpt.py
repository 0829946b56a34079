"""Image GPT: Chen et al., Generative Pretraining from Pixels, 2020.

https://cdn.openai.com/papers/Generative_Pretraining_from_Pixels_V2.pdf. Pixels are colours of a
palette, read row by row; a decoder scores the colour that follows each. Reference: transformers'
`ImageGPTForCausalImageModeling`. It differs from GPT-2: norms have no mean and no bias, GELU is
approximated by a sigmoid, words and outputs have a matrix each, and what begins a sequence is one
more word, the last.
"""

import math
import re
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxvision.errors import UserError
from jaxvision.layers.causal import KeysValues, attend_before, attend_past
from jaxvision.layers.linear import Dense
from jaxvision.layers.parameters import parameter
from jaxvision.models.variant import Variant
from jaxvision.ops.convolution import Pair, pair
from jaxvision.ops.decoding import Cache
from jaxvision.state_dict import StateDict

_EPSILON = 1e-5
_NORMAL = nn.initializers.normal(0.02)


class RootMeanSquareNorm(nn.Module):
    """Divides by the root of the mean square. Parameter: `scale`."""

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        scale = parameter(self, "scale", nn.initializers.ones, x.shape[-1:])
        wide = x.astype(jnp.float32)
        normal = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + _EPSILON)
        return (normal * scale).astype(self.dtype or jnp.promote_types(x.dtype, jnp.float32))


class Block(nn.Module):
    """Attention to the pixels before and an MLP, each on a residual branch after a norm.

    Attributes:
      num_heads: of the attention.
      depth: blocks of the network, by which kernels before a sum start smaller.
      dropout: rate, of weights of attention and of branches.
    """

    num_heads: int
    depth: int
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n t c"],
        train: bool = False,
        past: KeysValues | None = None,
        position: int | Int[Array, ""] = 0,
    ) -> tuple[Float[Array, "n t c"], Float[Array, "n t c"], KeysValues | None]:
        """Runs over whole sequences, or over the one pixel at `position` after those of the past.

        Returns:
          The pixels; what attention was given of them, behind the norm; the past with them.
        """
        channels = x.shape[-1]
        norm = partial(RootMeanSquareNorm, self.dtype)
        dense = partial(Dense, dtype=self.dtype, kernel_init=_NORMAL)
        smaller = nn.initializers.normal(0.02 * (2 * self.depth) ** -0.5)
        out = partial(Dense, channels, dtype=self.dtype, kernel_init=smaller)
        drop = nn.Dropout(self.dropout, deterministic=not train)

        normal = norm(name="ln_1_")(x)
        qkv = dense(3 * channels, name="attn.c_attn")(normal)
        if past is None:
            y = attend_before(self, qkv, self.num_heads, self.dropout, train)
        else:
            y, past = attend_past(qkv, self.num_heads, past, position)
        x = x + drop(out(name="attn.c_proj")(y))
        y = dense(4 * channels, name="mlp.c_fc")(norm(name="ln_2_")(x))
        y = y * jax.nn.sigmoid(1.702 * y)
        return x + drop(out(name="mlp.c_proj")(y)), normal, past


class ImageGPT(nn.Module):
    """Called with pixels as colours [b, t], the begin before them, it gives the next ones' logits.

    To draw, by `model.apply(variables, ..., method=...)`: `start(rows)` the cache of so many
    images, `step(cache, colour)` the logits of the next colour and the new cache; see
    `ops.decoding`.

    Attributes:
      colours: of the palette; the number after the last is the begin.
      size: side or (height, width) of the images.
      width: channels of a pixel.
      depth: how many blocks.
      num_heads: attention heads of a block.
      dropout: rate, of what is read, of weights of attention and of branches.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    METHOD: ClassVar[str] = "igpt"

    colours: int = 512
    size: Pair = 32
    width: int = 512
    depth: int = 24
    num_heads: int = 8
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    def setup(self) -> None:
        if self.width % self.num_heads:
            raise UserError(f"{self.width} channels do not divide among {self.num_heads} heads.")
        embed = partial(nn.Embed, features=self.width, embedding_init=_NORMAL)
        self.wte = embed(self.colours + 1, name="transformer.wte")
        self.wpe = embed(self.positions, name="transformer.wpe")
        self.blocks = [
            Block(
                self.num_heads, self.depth, self.dropout, self.dtype, name=f"transformer.h_{index}"
            )
            for index in range(self.depth)
        ]
        self.ln_f = RootMeanSquareNorm(self.dtype, name="transformer.ln_f")
        self.lm_head = Dense(
            self.colours, use_bias=False, dtype=self.dtype, kernel_init=_NORMAL, name="lm_head"
        )
        self.drop = nn.Dropout(self.dropout)

    @property
    def positions(self) -> int:
        """Pixels of an image."""
        return math.prod(pair(self.size))

    def _embed(
        self, pixels: Int[Array, "n t"], positions: Float[Array, "t c"]
    ) -> Float[Array, "n t c"]:
        return (self.wte(pixels) + positions).astype(self.dtype or jnp.float32)

    def _read(self, pixels: Int[Array, "n t"]) -> Float[Array, "n t c"]:
        if pixels.shape[1] > self.positions:
            raise UserError(
                f"{pixels.shape[1]} pixels; this network has positions for {self.positions}."
            )
        return self._embed(pixels, self.wpe(jnp.arange(pixels.shape[1])))

    def __call__(
        self, pixels: Int[Array, "n t"] | Float[Array, "n h w c"], train: bool = False
    ) -> Float[Array, "n t k"]:
        """The logits of what follows each pixel.

        Images that are no colours yet are read as so many begins: enough to draw variables by, and
        to count operations.
        """
        if pixels.ndim == 4:
            pixels = jnp.full((len(pixels), math.prod(pixels.shape[1:3])), self.colours)
        x = self.drop(self._read(pixels), deterministic=not train)
        for block in self.blocks:
            x, _, _ = block(x, train)
        return self.lm_head(self.ln_f(x))

    def features(self, pixels: Int[Array, "n t"], block: int) -> Float[Array, "n c"]:
        """The mean over pixels of what the attention of a block is given (section 3.4)."""
        x = self._read(pixels)
        for one in self.blocks[:block]:
            x, _, _ = one(x)
        return self.blocks[block](x)[1].mean(1)

    def start(self, rows: int) -> Cache:
        """The cache of so many images of which there is nothing yet."""
        shape = (rows, self.num_heads, self.positions, self.width // self.num_heads)
        nothing = jnp.zeros(shape, self.dtype or jnp.float32)
        past = [(nothing, nothing)] * self.depth
        return {"past": past, "position": jnp.zeros(rows, jnp.int32)}

    def step(self, cache: Cache, colour: Int[Array, " n"]) -> tuple[Float[Array, "n k"], Cache]:
        """The logits of the colour after this one, and the cache with it."""
        position, past = cache["position"][0], []
        x = self._embed(colour[:, None], self.wpe(position)[None])
        for block, before in zip(self.blocks, cache["past"], strict=True):
            x, _, now = block(x, False, before, position)
            past.append(now)
        logits = self.lm_head(self.ln_f(x))[:, 0]
        return logits, {"past": past, "position": cache["position"] + 1}


_KERNEL = re.compile(r"^transformer\.h\..*\.(?:c_attn|c_proj|c_fc)\.weight$")
_WIDENING = "transformer.h.0.mlp.c_fc.weight"
_MASKS = re.compile(r"\.attn\.(?:masked_)?bias$")  # of older files


def _transposed(state: StateDict) -> StateDict:
    return {name: value.T if _KERNEL.match(name) else value for name, value in state.items()}


def convert(state: StateDict) -> StateDict:
    """A state_dict of transformers in our layout, without the masks of older files.

    Others are unchanged: in ours kernels are [out, in], in theirs [in, out].
    """
    rows, columns = np.shape(state.get(_WIDENING, np.empty((1, 0))))
    if rows > columns:
        return dict(state)
    return _transposed({name: x for name, x in state.items() if not _MASKS.search(name)})


def _variant(width: int, depth: int) -> Variant:
    return Variant(
        ImageGPT,
        {"width": width, "depth": depth},
        "transformers ImageGPTForCausalImageModeling",
        (32, 32, 3),
        "Chen et al. 2020, https://proceedings.mlr.press/v119/chen20s.html",
        inputs=("pixels",),
        first="transformer.wte",
        convert=convert,
        export=_transposed,
    )


VARIANTS = {
    "imagegpt_small": _variant(512, 24),
    "imagegpt_medium": _variant(1024, 36),
    "imagegpt_large": _variant(1536, 48),
}
