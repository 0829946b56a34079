"""NIC: Vinyals et al., Show and Tell: A Neural Image Caption Generator, 2015.

https://arxiv.org/abs/1411.4555: the image is the first word that an LSTM reads. Reference:
`tests/parity/networks/captioning.py`, whose LSTM is `torch.nn.LSTMCell`. The encoder is any
network; the paper's was GoogLeNet with batch norm.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from jaxvision.layers.linear import Dense
from jaxvision.layers.recurrent import LSTMCell, State
from jaxvision.models.captioning.captioner import Captioner, Memory, recurrent
from jaxvision.ops.decoding import Cache


class Decoder(nn.Module):
    """An LSTM over the image and the words. Attributes: see `Nic`."""

    num_classes: int
    width: int
    hidden: int
    dropout: float = 0.0
    dtype: Any = None

    def setup(self) -> None:
        self.project = Dense(self.width, dtype=self.dtype)
        self.embed = nn.Embed(self.num_classes, self.width, dtype=self.dtype)
        self.lstm = LSTMCell(self.hidden, dtype=self.dtype)
        self.classifier = Dense(self.num_classes, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def _begin(self, memory: Memory, train: bool) -> State:
        """After the image was read."""
        x = self.drop(self.project(memory["places"].mean((1, 2))), deterministic=not train)
        gates, advance = self.lstm(x)
        zeros = jnp.zeros((x.shape[0], self.hidden), gates.dtype)
        state, _ = advance((zeros, zeros), gates)
        return state

    def __call__(
        self, memory: Memory, tokens: Int[Array, "b t"], train: bool
    ) -> dict[str, Float[Array, "b t v"]]:
        words = self.drop(self.embed(tokens), deterministic=not train)
        gates, advance = self.lstm(words)
        state = self._begin(memory, train)
        _, h = lax.scan(advance, state, gates.swapaxes(0, 1))
        h = self.drop(h.swapaxes(0, 1), deterministic=not train)
        return {"logits": self.classifier(h)}

    def start(self, memory: Memory, length: int) -> Cache:
        return {"state": self._begin(memory, False)}

    def step(self, cache: Cache, token: Int[Array, " b"]) -> tuple[Float[Array, "b v"], Cache]:
        gates, advance = self.lstm(self.embed(token))
        state, h = advance(cache["state"], gates)
        return self.classifier(h), {"state": state}


class Nic(Captioner):
    """The mean of the encoder's last map, then words, through an LSTM.

    Attributes, beside those of `Captioner`:
      width: channels of a word, and of the image as one.
      hidden: channels of the LSTM's state.
      dropout: rate, of what the LSTM reads and puts out.
    """

    width: int = 512
    hidden: int = 512
    dropout: float = 0.5

    def setup(self) -> None:
        self.decoder = Decoder(self.num_classes, self.width, self.hidden, self.dropout, self.dtype)


VARIANTS = {"nic": recurrent(Nic, "Vinyals et al. 2015, https://arxiv.org/abs/1411.4555")}
