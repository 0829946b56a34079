"""Transformer decoders over what an encoder puts out.

Layers are named as GPT-2's, norms as those of `torch.nn.TransformerDecoderLayer`.

Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762: a block attends
to the tokens before, then to the image, then has an MLP. GPT-2 (Radford et al. 2019,
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf)
normalises before each of these instead of after.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Initializer
from jaxtyping import Array, Float, Int

from jaxvision.errors import UserError
from jaxvision.layers.causal import (
    KeysValues,
    attend_before,
    attend_one,
    attend_past,
    by_heads,
)
from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import LayerNorm
from jaxvision.layers.patches import patch_grid
from jaxvision.layers.positions import Grid, sequence_positions, sine_positions
from jaxvision.layers.transformer import attend
from jaxvision.models.backbones.vit import resize_positions
from jaxvision.models.captioning.captioner import Captioner, Memory
from jaxvision.ops.decoding import Cache
from jaxvision.ops.linear import matmul
from jaxvision.state_dict import Shapes, StateDict, renamed

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": nn.relu, "gelu_tanh": nn.gelu}


class Block(nn.Module):
    """Attention to the tokens before, attention to the image, an MLP; all on residual branches.

    Attributes: see `Transformer`.
    """

    num_heads: int
    hidden: int
    pre_norm: bool = True
    activation: str = "gelu_tanh"
    dropout: float = 0.0
    epsilon: float = 1e-5
    kernel_init: Initializer = nn.initializers.normal(0.02)
    out_init: Initializer = nn.initializers.normal(0.02)
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n t c"],
        memory: KeysValues,
        train: bool = False,
        past: KeysValues | None = None,
        position: int | Int[Array, ""] = 0,
    ) -> tuple[Float[Array, "n t c"], KeysValues | None, Array | None]:
        """Runs over whole sequences, or over the one token at `position` after those of the past.

        Args:
          x: tokens.
          memory: of the image; n is a multiple of its batch.
          train: whether dropout acts.
          past: keys and values of the tokens before, in arrays for all tokens.
          position: that of the token.

        Returns:
          The tokens; the past with them, and the weights [b, heads, n / b, m] of the image's
          places, where there is a past.
        """
        channels, heads = x.shape[-1], self.num_heads
        dense = partial(Dense, dtype=self.dtype, kernel_init=self.kernel_init)
        out = partial(Dense, channels, dtype=self.dtype, kernel_init=self.out_init)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        weights: list[Array] = []

        def residual(x: Array, branch: Callable[[Array], Array], name: str) -> Array:
            norm = LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name=name)
            return x + drop(branch(norm(x))) if self.pre_norm else norm(x + drop(branch(x)))

        def look_back(x: Array) -> Array:
            nonlocal past
            qkv = dense(3 * channels, name="attn.c_attn")(x)
            if past is None:
                y = attend_before(self, qkv, heads, self.dropout, train)
            else:
                y, past = attend_past(qkv, heads, past, position)
            return out(name="attn.c_proj")(y)

        def look_up(x: Array) -> Array:
            q = dense(channels, name="crossattention.q_attn")(x)
            if past is None:
                k, v = (part.swapaxes(1, 2) for part in memory)
                q = q.reshape(*x.shape[:2], heads, -1)
                y = attend(self, q, k, v, dropout=self.dropout, train=train).reshape(x.shape)
            else:
                y, found = attend_one(q, memory, heads)
                weights.append(found)
            return out(name="crossattention.c_proj")(y)

        def mlp(x: Array) -> Array:
            y = _ACTIVATIONS[self.activation](dense(self.hidden, name="mlp.c_fc")(x))
            return out(name="mlp.c_proj")(y)

        x = residual(x, look_back, "norm1")
        x = residual(x, look_up, "norm2")
        return residual(x, mlp, "norm3"), past, weights[0] if weights else None


class Transformer(nn.Module):
    """The decoder; its last layer is the matrix of the words, transposed.

    Attributes:
      num_classes: tokens of the vocabulary.
      width: channels of a token.
      depth: how many blocks.
      num_heads: attention heads of a block.
      hidden: channels within its MLP.
      max_tokens: the longest sequence, for learnt positions; with 0 they are sines, and words are
        multiplied by the root of the width (Vaswani et al. 2017).
      pre_norm: whether branches are normalised, and the end, instead of their sums.
      activation: of the MLP.
      dropout: rate, of what is read, of weights of attention and of branches.
      epsilon: of the norms.
      kernel_init: of the kernels; those before a sum are smaller by the root of twice the depth.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    num_classes: int
    width: int
    depth: int
    num_heads: int
    hidden: int
    max_tokens: int
    pre_norm: bool
    activation: str
    dropout: float
    epsilon: float = 1e-5
    dtype: Any = None

    def setup(self) -> None:
        if self.width % self.num_heads:
            raise UserError(f"{self.width} channels do not divide among {self.num_heads} heads.")
        normal = nn.initializers.normal(0.02)
        smaller = nn.initializers.normal(0.02 * (2 * self.depth) ** -0.5)
        start = normal if self.max_tokens else nn.initializers.normal(self.width**-0.5)
        self.wte = nn.Embed(
            self.num_classes, self.width, embedding_init=start, name="transformer.wte"
        )
        if self.max_tokens:
            self.wpe = nn.Embed(
                self.max_tokens, self.width, embedding_init=normal, name="transformer.wpe"
            )
        xavier = nn.initializers.xavier_uniform()
        self.blocks = [
            Block(
                self.num_heads,
                self.hidden,
                self.pre_norm,
                self.activation,
                self.dropout,
                self.epsilon,
                normal if self.pre_norm else xavier,
                smaller if self.pre_norm else xavier,
                self.dtype,
                name=f"transformer.h_{index}",
            )
            for index in range(self.depth)
        ]
        self.of_memory = [
            Dense(
                2 * self.width,
                dtype=self.dtype,
                kernel_init=normal if self.pre_norm else xavier,
                name=f"transformer.h.{index}.crossattention.c_attn",
            )
            for index in range(self.depth)
        ]
        if self.pre_norm:
            self.ln_f = LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="transformer.ln_f")
        self.drop = nn.Dropout(self.dropout)

    def _embed(self, tokens: Int[Array, "n t"], positions: Array) -> Float[Array, "n t c"]:
        dtype = self.dtype or jnp.float32
        words = self.wte(tokens).astype(dtype)
        return words * (1 if self.max_tokens else self.width**0.5) + positions.astype(dtype)

    def _positions(self, length: int) -> Float[Array, "t c"]:
        if not self.max_tokens:
            return jnp.asarray(sequence_positions(length, self.width))
        if length > self.max_tokens:
            raise UserError(
                f"{length} tokens; this network has positions for max_tokens={self.max_tokens}."
            )
        return self.wpe(jnp.arange(length))

    def _look_at(self, memory: Memory) -> list[KeysValues]:
        """Keys and values of the image, for each block."""
        places = memory["places"]
        tokens = places.reshape(places.shape[0], -1, places.shape[-1])
        tokens = jnp.concatenate([memory["others"], tokens], 1)
        found = [jnp.split(project(tokens), 2, -1) for project in self.of_memory]
        return [(by_heads(k, self.num_heads), by_heads(v, self.num_heads)) for k, v in found]

    def _score(self, x: Float[Array, "n t c"]) -> Float[Array, "n t v"]:
        x = self.ln_f(x) if self.pre_norm else x
        return matmul(x, self.wte.embedding.astype(x.dtype).T)

    def __call__(
        self, memory: Memory, tokens: Int[Array, "b t"], train: bool
    ) -> dict[str, Float[Array, "b t v"]]:
        x = self._embed(tokens, self._positions(tokens.shape[1]))
        x = self.drop(x, deterministic=not train)
        for block, keys in zip(self.blocks, self._look_at(memory), strict=True):
            x, _, _ = block(x, keys, train)
        return {"logits": self._score(x)}

    def start(self, memory: Memory, length: int) -> Cache:
        self._positions(length)
        found = self._look_at(memory)
        shape = (memory["places"].shape[0], self.num_heads, length, self.width // self.num_heads)
        nothing = jnp.zeros(shape, found[0][0].dtype)
        return {
            "memory": found,
            "past": [(nothing, nothing)] * self.depth,
            "position": jnp.zeros(shape[0], jnp.int32),
            "attention": jnp.zeros(memory["places"].shape[:3], jnp.float32),
        }

    def step(self, cache: Cache, token: Int[Array, " b"]) -> tuple[Float[Array, "b v"], Cache]:
        position, past = cache["position"][0], []
        positions = self._positions(cache["past"][0][0].shape[2])
        x = self._embed(token[:, None], positions[position][None])
        weights: Any = None
        for block, keys, before in zip(self.blocks, cache["memory"], cache["past"], strict=True):
            x, now, weights = block(x, keys, False, before, position)
            past.append(now)
        attention = cache["attention"]
        looked = weights.mean(1).reshape(attention.shape[0], -1)
        looked = looked[:, -attention[0].size :].reshape(attention.shape)
        new = {"past": past, "position": cache["position"] + 1, "attention": looked}
        return self._score(x)[:, 0], {**cache, **new}


class TransformerCaptioner(Captioner):
    """A Transformer decoder over the encoder's tokens, or the places of its last map.

    As `attention` each block records what tokens look at in the image, and as `self_attention` what
    in the tokens before. While decoding, `attention` of the cache is the last block's, the mean
    over its heads; tokens without a place, as the class token is, have the rest.

    Attributes, beside those of `Captioner`:
      encoder: gives tokens, or feature maps of which the last is used.
      width, depth, num_heads, hidden, max_tokens, pre_norm, activation, dropout: see `Transformer`.
      image_positions: whether places get sines of their row and column (Carion et al. 2020).
    """

    ENCODER_END: ClassVar[str] = "tokens"

    width: int = 512
    depth: int = 6
    num_heads: int = 8
    hidden: int = 2048
    max_tokens: int = 0
    pre_norm: bool = False
    activation: str = "relu"
    dropout: float = 0.1
    image_positions: bool = False

    def setup(self) -> None:
        self.decoder = Transformer(
            self.num_classes,
            self.width,
            self.depth,
            self.num_heads,
            self.hidden,
            self.max_tokens,
            self.pre_norm,
            self.activation,
            self.dropout,
            dtype=self.dtype,
        )
        self.enc_to_dec_proj = Dense(self.width, dtype=self.dtype)

    def encode(self, image: Float[Array, "b h w c"], train: bool = False) -> Memory:
        found = self.features(image, train)
        if isinstance(found, tuple):
            places, others = found[-1], found[-1][:, :0, 0]
        else:
            grid = patch_grid(image.shape, self.encoder.patch_size)
            before = found.shape[1] - grid[0] * grid[1]
            others = found[:, :before]
            places = found[:, before:].reshape(found.shape[0], *grid, -1)
        if places.shape[-1] != self.width:
            places, others = self.enc_to_dec_proj(places), self.enc_to_dec_proj(others)
        if self.image_positions:
            sines = sine_positions((places.shape[1], places.shape[2]), self.width)
            places += jnp.asarray(sines, places.dtype).reshape(places.shape[1:])
        return {"places": places, "others": others}


# From torch.nn.TransformerDecoder's names to GPT-2's.
_TO_OURS = (
    (r"^embed\.", "decoder.transformer.wte."),
    (r"^positions\.", "decoder.transformer.wpe."),
    (r"^decoder\.norm\.", "decoder.transformer.ln_f."),
    (r"^decoder\.layers\.(\d+)\.", r"decoder.transformer.h.\1."),
    (r"\.self_attn\.in_proj_", ".attn.c_attn."),
    (r"\.self_attn\.out_proj\.", ".attn.c_proj."),
    (r"\.multihead_attn\.out_proj\.", ".crossattention.c_proj."),
    (r"\.linear1\.", ".mlp.c_fc."),
    (r"\.linear2\.", ".mlp.c_proj."),
)
_FROM_OURS = (
    (r"^decoder\.transformer\.wte\.", "embed."),
    (r"^decoder\.transformer\.wpe\.", "positions."),
    (r"^decoder\.transformer\.ln_f\.", "decoder.norm."),
    (r"^decoder\.transformer\.h\.(\d+)\.", r"decoder.layers.\1."),
    (r"\.attn\.c_attn\.", ".self_attn.in_proj_"),
    (r"\.attn\.c_proj\.", ".self_attn.out_proj."),
    (r"\.crossattention\.c_proj\.", ".multihead_attn.out_proj."),
    (r"\.mlp\.c_fc\.", ".linear1."),
    (r"\.mlp\.c_proj\.", ".linear2."),
)


def from_torch(state: StateDict) -> StateDict:
    """A state_dict on `torch.nn.TransformerDecoder` by our names; others unchanged."""
    found: StateDict = {}
    for name, value in renamed(state, _TO_OURS).items():
        place, joined, leaf = name.partition(".multihead_attn.in_proj_")
        if joined:  # queries first, then keys and values
            parts = np.split(value, [len(value) // 3])
            for part, rows in zip(("q_attn", "c_attn"), parts, strict=True):
                found[f"{place}.crossattention.{part}.{leaf}"] = rows
        else:
            found[name] = value
    return found


def to_torch(state: StateDict) -> StateDict:
    """The inverse of `from_torch`."""
    found: StateDict = {}
    for name, value in state.items():
        place, _, leaf = name.partition(".crossattention.")
        kind = leaf.rpartition(".")[2]
        if leaf.startswith("q_attn."):
            keys = state[f"{place}.crossattention.c_attn.{kind}"]
            found[f"{place}.multihead_attn.in_proj_{kind}"] = np.concatenate([value, keys])
        elif not leaf.startswith("c_attn."):
            found[name] = value
    return renamed(found, _FROM_OURS)


def resize_encoder(state: StateDict, shapes: Shapes, grid: Grid | None) -> StateDict:
    """A state_dict whose encoder's positions are resampled to the wanted number of tokens.

    Raises:
      UserError: positions of a grid that is not known; see `stored_grid`.
    """
    name = "encoder.pos_embed"
    if name not in state or name not in shapes:
        return state
    prefix = sum(f"encoder.{token}" in state for token in ("cls_token", "dist_token"))
    one = {"pos_embed": state[name]}, {"pos_embed": shapes[name]}
    return state | {name: resize_positions(*one, grid, prefix)["pos_embed"]}
