"""The blocks of vision transformers, named and laid out as in timm.

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, https://arxiv.org/abs/2010.11929
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.blocks import DropPath
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.intermediates import asked, record
from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import LayerNorm
from jaxvision.layers.parameters import parameter
from jaxvision.layers.positions import Grid, Interpolation, relative_bias
from jaxvision.ops.attention import dot_product_attention
from jaxvision.ops.forms import computed_once
from jaxvision.ops.linear import add_bias
from jaxvision.ops.windows import Pair, pair

gelu = partial(jax.nn.gelu, approximate=False)
_truncated_normal = nn.initializers.truncated_normal(0.02)


class LayerScale(nn.Module):
    """A learnt factor per channel, `gamma`.

    Touvron et al., "Going deeper with Image Transformers", 2021, https://arxiv.org/abs/2103.17239

    Attributes:
      initial: what `gamma` starts from.
    """

    initial: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        gamma = parameter(self, "gamma", nn.initializers.constant(self.initial), (x.shape[-1],))
        return x * gamma.astype(x.dtype)


def attend(
    module: nn.Module,
    q: Float[Array, "b n heads d"],
    k: Float[Array, "b m heads d"],
    v: Float[Array, "b m heads d"],
    bias: Float[Array, " windows #heads n m"] | None = None,
    dropout: float = 0.0,
    train: bool = False,
    recorded: str = "attention",
) -> Float[Array, "b n heads d"]:
    """`dot_product_attention`, with dropout on its weights, which may be recorded.

    Args:
      module: that attends, inside its compact method.
      q, k, v, bias: see `dot_product_attention`.
      dropout: rate of dropout on the weights.
      train: whether dropout acts.
      recorded: the name by which the weights are given to who asks, see `layers.intermediates`;
        "" is none.
    """
    wanted = bool(recorded) and asked(module, recorded)
    if not wanted and not (train and dropout > 0):
        return dot_product_attention(q, k, v, bias)
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
    if bias is not None:
        logits += jnp.tile(bias, (len(q) // len(bias), 1, 1, 1))
    weights = nn.softmax(logits).astype(q.dtype)
    if wanted:
        record(module, recorded, weights)
    weights = nn.Dropout(dropout, deterministic=not train)(weights)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


class Attention(nn.Module):
    """Multi-head self-attention over tokens, with `qkv` packed as in timm: (3, heads, head_dim).

    Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762

    The weights [b, heads, n, n] are recorded as `attention`, see `jaxvision.layers.intermediates`.

    Attributes:
      num_heads: how many heads.
      head_dim: channels of a head; None is the input's channels over the heads.
      qkv_bias: whether `qkv` has a bias; "qv" are `q_bias` and `v_bias`, for queries and values.
      proj_bias: whether `proj` has a bias.
      window: rows and columns of the tokens, which then have relative position biases; None is
        none.
      class_token: whether the first token of a window is one without a place.
      table_window: the window that the table of biases is made for; see `stored_grid`.
      interpolation: of the table, for other windows; see `resize_relative_bias`.
      out_dropout: rate of dropout on the output.
      attn_dropout: rate of dropout on the attention weights.
      dtype: what is computed in; None is what input and parameters promote to.
      kernel_init: of both kernels.
    """

    num_heads: int
    head_dim: int | None = None
    qkv_bias: bool | str = True
    proj_bias: bool = True
    window: Grid | None = None
    class_token: bool = False
    table_window: Grid | None = None
    interpolation: Interpolation = "geometric"
    out_dropout: float = 0.0
    attn_dropout: float = 0.0
    dtype: Any = None
    kernel_init: Initializer = _truncated_normal

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        train: bool,
        mask: Float[Array, " windows #heads n n"] | None = None,
    ) -> Float[Array, "b n c"]:
        """Attends.

        Args:
          x: tokens.
          train: whether dropout acts.
          mask: added to the logits; if it is for fewer than the batch, it is repeated.
        """
        batch, tokens, channels = x.shape
        if self.head_dim is None and channels % self.num_heads:
            raise ValueError(f"{channels} channels do not divide among {self.num_heads} heads.")
        head_dim = self.head_dim or channels // self.num_heads
        inner = self.num_heads * head_dim
        dense = partial(Dense, dtype=self.dtype, kernel_init=self.kernel_init)
        qkv = dense(3 * inner, use_bias=self.qkv_bias is True, name="qkv")(x)
        qkv = qkv.reshape(batch, tokens, 3, self.num_heads, head_dim)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if self.qkv_bias == "qv":
            by_head = (self.num_heads, head_dim)
            zeros = nn.initializers.zeros
            q = q + parameter(self, "q_bias", zeros, (inner,)).reshape(by_head).astype(q.dtype)
            v = v + parameter(self, "v_bias", zeros, (inner,)).reshape(by_head).astype(v.dtype)
        bias = mask
        if self.window is not None:
            of_table = (self.table_window, self.interpolation)
            bias = relative_bias(self, self.window, self.num_heads, self.class_token, *of_table)
            bias = bias[None]
            if mask is not None:
                masks = jnp.broadcast_to(mask, (len(mask), *bias.shape[1:]))
                bias = add_bias(masks.reshape(len(mask), -1), bias.reshape(-1)).reshape(masks.shape)
        y = attend(self, q, k, v, bias, self.attn_dropout, train)
        y = dense(channels, use_bias=self.proj_bias, name="proj")(y.reshape(batch, tokens, inner))
        return nn.Dropout(self.out_dropout, deterministic=not train)(y)


class CrossAttention(nn.Module):
    """Multi-head attention of queries to keys and values, each projected by a layer of its own.

    The layers are `q_proj`, `k_proj`, `v_proj` and `o_proj`, as in transformers.

    Attributes:
      num_heads: how many heads; they divide the channels of the queries among them.
      recorded: the name by which the weights [b, heads, n, m] are recorded; "" is none.
      dtype: what is computed in; None is what input and parameters promote to.
      kernel_init: of the four kernels.
    """

    num_heads: int
    recorded: str = "attention"
    dtype: Any = None
    kernel_init: Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "b n c"],
        keys: Float[Array, "b m d"],
        values: Float[Array, "b m e"],
    ) -> Float[Array, "b n c"]:
        channels = queries.shape[-1]
        if channels % self.num_heads:
            raise UserError(f"{channels} channels do not divide among {self.num_heads} heads.")
        dense = partial(Dense, channels, dtype=self.dtype, kernel_init=self.kernel_init)
        q, k, v = (
            dense(name=f"{part}_proj")(x).reshape(*x.shape[:2], self.num_heads, -1)
            for part, x in zip("qkv", (queries, keys, values))
        )
        y = attend(self, q, k, v, recorded=self.recorded)
        return dense(name="o_proj")(y.reshape(queries.shape))


class Mlp(nn.Module):
    """Two dense layers, `fc1` and `fc2`, each followed by dropout.

    Attributes:
      hidden: channels between the two.
      act: the activation between them; the exact GELU.
      dropout: its rate.
      dtype: what is computed in; None is what input and parameters promote to.
      kernel_init: of both kernels.
    """

    hidden: int
    act: Callable[[Array], Array] = gelu
    dropout: float = 0.0
    dtype: Any = None
    kernel_init: Initializer = _truncated_normal

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b c"]:
        dense = partial(Dense, dtype=self.dtype, kernel_init=self.kernel_init)
        drop = partial(nn.Dropout, self.dropout, deterministic=not train)
        y = drop()(self.act(dense(self.hidden, name="fc1")(x)))
        return drop()(dense(x.shape[-1], name="fc2")(y))


class PatchEmbed(nn.Module):
    """One token per patch of the image, row by row: a convolution, `proj`, at the patches' stride.

    Attributes:
      patch_size: one number or (rows, columns).
      features: channels of a token.
      use_bias: whether `proj` has a bias.
      norm_epsilon: of a layer norm, `norm`, over the tokens; None is no norm.
      dtype: what is computed in; None is what input and parameters promote to.
      kernel_init: of the convolution.
    """

    patch_size: Pair
    features: int
    use_bias: bool = True
    norm_epsilon: float | None = None
    dtype: Any = None
    kernel_init: Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        size = pair(self.patch_size)
        if x.shape[1] % size[0] or x.shape[2] % size[1]:
            raise ValueError(f"An image of {x.shape[1:3]} does not divide into patches of {size}.")
        y = Conv2d(
            self.features,
            size,
            stride=size,
            padding=0,
            use_bias=self.use_bias,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name="proj",
        )(x)
        y = y.reshape(y.shape[0], -1, self.features)
        if self.norm_epsilon is None:
            return y
        return LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm")(y)


class TransformerBlock(nn.Module):
    """Attention and MLP, each behind a layer norm and on a residual branch: timm's ViT `Block`.

    Attributes:
      num_heads: of the attention.
      mlp_ratio: hidden channels of the MLP over the input's.
      qkv_bias: whether `attn.qkv` has a bias.
      out_dropout: rate of dropout after the attention's projection and in the MLP.
      attn_dropout: rate of dropout on the attention weights.
      drop_path: the probability that a sample skips a branch, unless the call gives another.
      init_values: what the layer scales `ls1` and `ls2` start from; None is no layer scale.
      act: the activation of the MLP.
      head_dim: channels of one head; None is the channels over the heads.
      epsilon: of the layer norms.
      dtype: what is computed in; None is what input and parameters promote to.
      kernel_init: of all kernels.
    """

    num_heads: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    out_dropout: float = 0.0
    attn_dropout: float = 0.0
    drop_path: float = 0.0
    init_values: float | None = None
    act: Callable[[Array], Array] = gelu
    head_dim: int | None = None
    epsilon: float = 1e-6
    dtype: Any = None
    kernel_init: Initializer = _truncated_normal

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n c"], train: bool, drop_path: float | Array | None = None
    ) -> Float[Array, "b n c"]:
        def residual(x: Array, branch: Array, scale_name: str) -> Array:
            if self.init_values is not None:
                branch = LayerScale(self.init_values, name=scale_name)(branch)
            dropped = DropPath(self.drop_path if drop_path is None else drop_path)(branch, train)
            return computed_once(x + dropped)

        attention = Attention(
            self.num_heads,
            head_dim=self.head_dim,
            qkv_bias=self.qkv_bias,
            out_dropout=self.out_dropout,
            attn_dropout=self.attn_dropout,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name="attn",
        )
        hidden = int(x.shape[-1] * self.mlp_ratio)
        of_all = {"dtype": self.dtype, "kernel_init": self.kernel_init}
        mlp = Mlp(hidden, self.act, self.out_dropout, **of_all, name="mlp")
        norm = partial(LayerNorm, epsilon=self.epsilon, dtype=self.dtype)
        x = residual(x, attention(norm(name="norm1")(x), train), "ls1")
        return residual(x, mlp(norm(name="norm2")(x), train), "ls2")
