"""CNN and RNN: Johnson, Deep Learning for Computer Vision, lecture 13, 2019.

https://web.eecs.umich.edu/~justincj/teaching/eecs498/FA2019/schedule.html: an image is translated
as a sentence is by Sutskever et al., Sequence to Sequence Learning with Neural Networks, 2014,
https://arxiv.org/abs/1409.3215. An MLP makes the context of the whole map; it is the RNN's first
state, and is given to it again at every step, beside the word. Reference:
`tests/parity/networks/captioning.py`, whose RNN is `torch.nn.RNNCell`.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from jaxvision.layers.linear import Dense
from jaxvision.layers.recurrent import RNNCell, State
from jaxvision.models.captioning.captioner import Captioner, Memory, recurrent
from jaxvision.ops.decoding import Cache


class Decoder(nn.Module):
    """An Elman RNN that is given the context at every step. Attributes: see `CnnRnn`."""

    num_classes: int
    width: int
    hidden: int
    dropout: float = 0.0
    dtype: Any = None

    def setup(self) -> None:
        self.context_0 = Dense(self.hidden, dtype=self.dtype)
        self.context_2 = Dense(self.hidden, dtype=self.dtype)
        self.embed = nn.Embed(self.num_classes, self.width, dtype=self.dtype)
        self.rnn = RNNCell(self.hidden, dtype=self.dtype)
        self.classifier = Dense(self.num_classes, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def _context(self, memory: Memory) -> Float[Array, "b h"]:
        places = memory["places"]
        return self.context_2(nn.relu(self.context_0(places.reshape(places.shape[0], -1))))

    def __call__(
        self, memory: Memory, tokens: Int[Array, "b t"], train: bool
    ) -> dict[str, Float[Array, "b t v"]]:
        context = self._context(memory)
        words = self.drop(self.embed(tokens), deterministic=not train)
        beside = jnp.broadcast_to(context[:, None], (*tokens.shape, self.hidden))
        gates, advance = self.rnn(jnp.concatenate([words, beside], -1))
        state: State = (context,)
        _, h = lax.scan(advance, state, gates.swapaxes(0, 1))
        h = self.drop(h.swapaxes(0, 1), deterministic=not train)
        return {"logits": self.classifier(h)}

    def start(self, memory: Memory, length: int) -> Cache:
        context = self._context(memory)
        return {"state": (context,), "context": context}

    def step(self, cache: Cache, token: Int[Array, " b"]) -> tuple[Float[Array, "b v"], Cache]:
        gates, advance = self.rnn(jnp.concatenate([self.embed(token), cache["context"]], -1))
        state, h = advance(cache["state"], gates)
        return self.classifier(h), {**cache, "state": state}


class CnnRnn(Captioner):
    """An RNN over words and a context that an MLP makes of the encoder's last map.

    Parameters depend on the map's size, so images have the size that the network was made for.

    Attributes, beside those of `Captioner`:
      width: channels of a word.
      hidden: channels of the RNN's state and of the context.
      dropout: rate, of words and of what the RNN puts out.
    """

    width: int = 512
    hidden: int = 512
    dropout: float = 0.5

    def setup(self) -> None:
        self.decoder = Decoder(self.num_classes, self.width, self.hidden, self.dropout, self.dtype)


VARIANTS = {"cnn_rnn": recurrent(CnnRnn, "Sutskever et al. 2014, https://arxiv.org/abs/1409.3215")}
