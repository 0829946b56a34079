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

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.normalization import LayerNorm
from jaxvision.ops.convolution import Pair, pair

gelu = partial(jax.nn.gelu, approximate=False)
_truncated_normal = nn.initializers.truncated_normal(0.02)


class DropPath(nn.Module):
    """Drops whole samples of a residual branch, and scales up the others (stochastic depth).

    Huang et al., "Deep Networks with Stochastic Depth", 2016, https://arxiv.org/abs/1603.09382

    Attributes:
      rate: the probability that a sample is dropped.
    """

    rate: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], train: bool) -> Float[Array, "b ..."]:
        if not train or self.rate == 0:
            return x
        if self.rate == 1:
            return jnp.zeros_like(x)
        keep = 1 - self.rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        return jnp.where(kept, x / keep, 0)


class LayerScale(nn.Module):
    """A learnt factor per channel, `gamma`.

    Touvron et al., "Going deeper with Image Transformers", 2021, https://arxiv.org/abs/2103.17239

    Attributes:
      initial: what `gamma` starts from.
    """

    initial: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        gamma = self.param("gamma", nn.initializers.constant(self.initial), (x.shape[-1],))
        return x * gamma.astype(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention over tokens, with `qkv` packed as in timm: (3, heads, head_dim).

    Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762

    Attributes:
      num_heads: how many heads.
      head_dim: channels of a head; None is the input's channels over the heads.
      qkv_bias: whether `qkv` has a bias.
      proj_bias: whether `proj` has a bias.
      out_dropout: rate of dropout on the output.
      attn_dropout: rate of dropout on the attention weights.
      dtype: what is computed in; None is what input and parameters promote to.
      kernel_init: of both kernels.
    """

    num_heads: int
    head_dim: int | None = None
    qkv_bias: bool = True
    proj_bias: bool = True
    out_dropout: float = 0.0
    attn_dropout: float = 0.0
    dtype: Any = None
    kernel_init: Initializer = _truncated_normal

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], train: bool) -> Float[Array, "b n c"]:
        batch, tokens, channels = x.shape
        if self.head_dim is None and channels % self.num_heads:
            raise ValueError(f"{channels} channels do not divide among {self.num_heads} heads.")
        head_dim = self.head_dim or channels // self.num_heads
        inner = self.num_heads * head_dim
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=self.kernel_init)
        qkv = dense(3 * inner, use_bias=self.qkv_bias, name="qkv")(x)
        qkv = qkv.reshape(batch, tokens, 3, self.num_heads, head_dim)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if train and self.attn_dropout > 0:
            logits = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.float32) * head_dim**-0.5
            weights = nn.softmax(logits).astype(q.dtype)
            weights = nn.Dropout(self.attn_dropout, deterministic=False)(weights)
            y = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        else:
            y = jax.nn.dot_product_attention(q, k, v)
        y = dense(channels, use_bias=self.proj_bias, name="proj")(y.reshape(batch, tokens, inner))
        return nn.Dropout(self.out_dropout, deterministic=not train)(y)


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
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=self.kernel_init)
        drop = partial(nn.Dropout, self.dropout, deterministic=not train)
        y = drop()(self.act(dense(self.hidden, name="fc1")(x)))
        return drop()(dense(x.shape[-1], name="fc2")(y))


class PatchEmbed(nn.Module):
    """One token per patch of the image, row by row: a convolution, `proj`, at the patches' stride.

    Attributes:
      patch_size: one number or (rows, columns).
      features: channels of a token.
      use_bias: whether `proj` has a bias.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    patch_size: Pair
    features: int
    use_bias: bool = True
    dtype: Any = None

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
            kernel_init=nn.initializers.lecun_normal(),
            name="proj",
        )(x)
        return y.reshape(y.shape[0], -1, self.features)


class TransformerBlock(nn.Module):
    """Attention and MLP, each behind a layer norm and on a residual branch: timm's ViT `Block`.

    Attributes:
      num_heads: of the attention.
      mlp_ratio: hidden channels of the MLP over the input's.
      qkv_bias: whether `attn.qkv` has a bias.
      out_dropout: rate of dropout after the attention's projection and in the MLP.
      attn_dropout: rate of dropout on the attention weights.
      drop_path: the probability that a sample skips a branch.
      init_values: what the layer scales `ls1` and `ls2` start from; None is no layer scale.
      act: the activation of the MLP.
      head_dim: channels of one head; None is the channels over the heads.
      epsilon: of the layer norms.
      dtype: what is computed in; None is what input and parameters promote to.
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

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], train: bool) -> Float[Array, "b n c"]:
        def residual(x: Array, branch: Array, scale_name: str) -> Array:
            if self.init_values is not None:
                branch = LayerScale(self.init_values, name=scale_name)(branch)
            return x + DropPath(self.drop_path)(branch, train)

        attention = Attention(
            self.num_heads,
            head_dim=self.head_dim,
            qkv_bias=self.qkv_bias,
            out_dropout=self.out_dropout,
            attn_dropout=self.attn_dropout,
            dtype=self.dtype,
            name="attn",
        )
        hidden = int(x.shape[-1] * self.mlp_ratio)
        mlp = Mlp(hidden, self.act, self.out_dropout, dtype=self.dtype, name="mlp")
        norm = partial(LayerNorm, epsilon=self.epsilon, dtype=self.dtype)
        x = residual(x, attention(norm(name="norm1")(x), train), "ls1")
        return residual(x, mlp(norm(name="norm2")(x), train), "ls2")
