"""Xu et al., Show, Attend and Tell: Neural Image Caption Generation with Visual Attention, 2015.

https://arxiv.org/abs/1502.03044: before each word an LSTM looks at the places of the map: at all of
them by their weights (soft), or at one that is drawn by them (hard). The gate and the deep output
are the paper's sections 4.2.1 and 3.1.2; the first states and the deep output have a tanh, as in
the authors' code. Reference: `tests/parity/networks/captioning.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxvision.layers.linear import Dense
from jaxvision.layers.recurrent import LSTMCell, State
from jaxvision.models.captioning.captioner import Captioner, Memory, recurrent
from jaxvision.ops.decoding import Cache


class Decoder(nn.Module):
    """An LSTM that attends to places before each word. Attributes: see `ShowAttendTell`."""

    num_classes: int
    width: int
    hidden: int
    attention_width: int
    hard: bool = False
    soft_share: float = 0.0
    dropout: float = 0.0
    dtype: Any = None

    def setup(self) -> None:
        def dense(features: int, **options: Any) -> Dense:
            return Dense(features, dtype=self.dtype, **options)

        self.embed = nn.Embed(self.num_classes, self.width, dtype=self.dtype)
        self.init_h, self.init_c = dense(self.hidden), dense(self.hidden)
        self.attend_places = dense(self.attention_width)
        self.attend_state = dense(self.attention_width, use_bias=False)
        self.attend_score = dense(1, use_bias=False)  # the softmax takes a bias out again
        self.gate = dense(1)
        self.lstm = LSTMCell(self.hidden, dtype=self.dtype)
        self.from_state, self.from_context = dense(self.width), dense(self.width, use_bias=False)
        self.classifier = dense(self.num_classes)
        self.drop = nn.Dropout(self.dropout)

    def _remember(self, memory: Memory) -> tuple[Memory, State]:
        """What steps read, and the first state."""
        places = memory["places"]
        mean = places.mean((1, 2))
        state = jnp.tanh(self.init_h(mean)), jnp.tanh(self.init_c(mean))
        return {"places": places, "projected": self.attend_places(places)}, state

    def _look(
        self, memory: Memory, h: Float[Array, "n s"], train: bool
    ) -> tuple[Float[Array, "n d"], dict[str, Array]]:
        """The context of each state, and how it was found; n is a multiple of the images."""
        images, *grid, channels = memory["places"].shape
        places = memory["places"].reshape(images, -1, channels)
        keys = memory["projected"].reshape(images, 1, -1, self.attention_width)
        queries = self.attend_state(h).reshape(images, -1, 1, self.attention_width)
        scores = self.attend_score(jnp.tanh(keys + queries))[..., 0].astype(jnp.float32)
        likelihood = jax.nn.log_softmax(scores)
        weights = jnp.exp(likelihood)
        found = {"attention": weights.reshape(-1, *grid)}
        if self.hard and train:
            place = jax.random.categorical(self.make_rng("dropout"), likelihood)
            chosen = jnp.take_along_axis(likelihood, place[..., None], -1)[..., 0]
            soft = memory["soft"][:, None]
            found["attention_log_probability"] = jnp.where(soft, 0, chosen).reshape(-1)
            found["attention_entropy"] = -(weights * likelihood).sum(-1).reshape(-1)
            one = jax.nn.one_hot(place, scores.shape[-1])
            weights = jnp.where(soft[..., None], weights, one)
        elif self.hard:
            weights = jax.nn.one_hot(likelihood.argmax(-1), scores.shape[-1])
        context = jnp.einsum("bgl,bld->bgd", weights.astype(places.dtype), places)
        context = context.reshape(-1, channels)
        return nn.sigmoid(self.gate(h)) * context, found

    def _soft(self, images: int) -> Bool[Array, " b"]:
        """Which images of a training are looked at as a whole."""
        if not self.soft_share:
            return jnp.zeros(images, bool)
        return jax.random.bernoulli(self.make_rng("dropout"), self.soft_share, (images,))

    def _advance(
        self, memory: Memory, state: State, word: Float[Array, "n e"], train: bool
    ) -> tuple[State, tuple[Array, Array, dict[str, Array]]]:
        """The state after a word, and what the next word is scored by."""
        context, found = self._look(memory, state[0], train)
        gates, advance = self.lstm(jnp.concatenate([word, context.astype(word.dtype)], -1))
        state, h = advance(state, gates)
        return state, (h, context, found)

    def _score(self, word: Array, h: Array, context: Array, train: bool) -> Array:
        deep = jnp.tanh(word + self.from_state(h) + self.from_context(context))
        return self.classifier(self.drop(deep, deterministic=not train))

    def __call__(self, memory: Memory, tokens: Int[Array, "b t"], train: bool) -> dict[str, Array]:
        words = self.embed(tokens)
        memory, state = self._remember(memory)
        if self.hard and train:
            memory["soft"] = self._soft(tokens.shape[0])

        def body(decoder: Decoder, state: State, word: Array) -> tuple[State, tuple]:
            return decoder._advance(memory, state, word, train)

        scan = nn.scan(
            body,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=1,
            out_axes=1,
        )
        _, (h, context, found) = scan(self, state, words)
        logits = self._score(words, h, context, train)
        places = found["attention"].reshape(*tokens.shape, -1)
        return {"logits": logits, **found, "attention": places}

    def start(self, memory: Memory, length: int) -> Cache:
        memory, state = self._remember(memory)
        nowhere = jnp.zeros(memory["places"].shape[:3], jnp.float32)
        return {"memory": memory, "state": state, "attention": nowhere}

    def step(self, cache: Cache, token: Int[Array, " b"]) -> tuple[Float[Array, "b v"], Cache]:
        word = self.embed(token)
        state, (h, context, found) = self._advance(cache["memory"], cache["state"], word, False)
        logits = self._score(word, h, context, False)
        return logits, {**cache, "state": state, "attention": found["attention"]}


class ShowAttendTell(Captioner):
    """Words by an LSTM that attends to the places of the encoder's last map.

    In training it returns beside `logits` the weights of the places, `attention` [b, t, places];
    hard attention also the logarithm of the probability of the place that was drawn and the entropy
    of all, `attention_log_probability` and `attention_entropy` [b, t]. It draws by the stream
    "dropout"; in evaluation it takes the likeliest place. `attention` are the weights either way.

    Attributes, beside those of `Captioner`:
      width: channels of a word.
      hidden: channels of the LSTM's state.
      attention_width: channels that state and places are compared in.
      hard: whether one place is looked at, and not all.
      soft_share: hard attention: of so many of the images in training all places are looked at by
        their weights; the paper's section 4.1 has 0.5, without which it learns slowly.
      dropout: rate, before the last layer.
    """

    width: int = 512
    hidden: int = 512
    attention_width: int = 512
    hard: bool = False
    soft_share: float = 0.0
    dropout: float = 0.5

    def setup(self) -> None:
        self.decoder = Decoder(
            self.num_classes,
            self.width,
            self.hidden,
            self.attention_width,
            self.hard,
            self.soft_share,
            self.dropout,
            self.dtype,
        )


_XU = "Xu et al. 2015, https://arxiv.org/abs/1502.03044"
VARIANTS = {
    "show_attend_tell": recurrent(ShowAttendTell, _XU),
    "hard_attention": recurrent(ShowAttendTell, _XU, hard=True, soft_share=0.5),
}
