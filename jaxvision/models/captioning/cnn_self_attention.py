"""Self-attention over a CNN's map, then the decoder of Show, Attend and Tell.

Wang et al., Non-local Neural Networks, 2018, https://arxiv.org/abs/1711.07971, in the form of Zhang
et al., Self-Attention Generative Adversarial Networks, 2019, https://arxiv.org/abs/1805.08318: each
place is a query to all, and what it finds is added, times a factor that starts from 0. Reference:
`tests/parity/networks/captioning.py`.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.intermediates import record
from jaxvision.layers.linear import Dense
from jaxvision.layers.parameters import parameter
from jaxvision.models.captioning.captioner import Memory, recurrent
from jaxvision.models.captioning.show_attend_tell import ShowAttendTell


class SelfAttention(nn.Module):
    """A map plus what each of its places finds in all of them; the softmax is of plain products.

    The weights [b, 1, places, places] are recorded as `self_attention`.

    Attributes:
      keys, values: channels of these are the map's over so much.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    keys: int = 8
    values: int = 2
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        channels = x.shape[-1]
        parts = {"query": self.keys, "key": self.keys, "value": self.values}
        q, k, v = (
            Dense(max(1, channels // share), dtype=self.dtype, name=name)(x)
            for name, share in parts.items()
        )
        q, k, v = (part.reshape(x.shape[0], -1, part.shape[-1]) for part in (q, k, v))
        scores = jnp.einsum("bqd,bkd->bqk", q, k).astype(jnp.float32)
        weights = nn.softmax(scores).astype(v.dtype)
        record(self, "self_attention", weights[:, None])
        y = jnp.einsum("bqk,bkd->bqd", weights, v)
        y = Dense(channels, dtype=self.dtype, name="out")(y).reshape(x.shape)
        return x + parameter(self, "gamma", nn.initializers.zeros, (1,)).astype(y.dtype) * y


class CnnSelfAttention(ShowAttendTell):
    """`ShowAttendTell` on a map whose places have looked at each other.

    Attributes: those of `ShowAttendTell`.
    """

    def setup(self) -> None:
        super().setup()
        self.self_attention = SelfAttention(dtype=self.dtype)

    def encode(self, image: Float[Array, "b h w c"], train: bool = False) -> Memory:
        return {"places": self.self_attention(self.features(image, train)[-1])}


VARIANTS = {
    "cnn_self_attention": recurrent(
        CnnSelfAttention, "Wang et al. 2018, https://arxiv.org/abs/1711.07971"
    )
}
