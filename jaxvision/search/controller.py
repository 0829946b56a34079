"""The recurrent network that writes down architectures."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxvision.search.space import Space


class Controller(nn.Module):
    """An LSTM whose every output is one decision, and whose next input is what was decided.

    Decisions of one kind share their output layer and their embedding.

    Attributes:
      space: what is decided.
      width: of the LSTM.
    """

    space: Space
    width: int = 64

    def setup(self) -> None:
        options = [
            max(n for n, k in zip(self.space.choices, self.space.kinds) if k == kind)
            for kind in sorted(set(self.space.kinds))
        ]
        small = nn.initializers.uniform(0.16)
        centred = lambda *args: small(*args) - 0.08  # noqa: E731  (Zoph and Le: -0.08 to 0.08)
        self.cell = nn.OptimizedLSTMCell(
            self.width, kernel_init=centred, recurrent_kernel_init=centred
        )
        self.outputs = [nn.Dense(n, kernel_init=centred) for n in options]
        self.embeddings = [nn.Embed(n, self.width, embedding_init=centred) for n in options]

    def __call__(
        self, key: Array | None, decisions: Int[Array, "n d"] | None = None, count: int = 0
    ) -> tuple[Int[Array, "n d"], Float[Array, " n"], Float[Array, " n"]]:
        """Samples `count` sequences with `key`, or follows the given ones.

        Returns:
          The decisions, their log-probabilities, and the sums of the entropies of the
          distributions that they were drawn from.
        """
        count = count if decisions is None else len(decisions)
        keys = None if key is None else jax.random.split(key, len(self.space.choices))
        carry = self.cell.initialize_carry(jax.random.key(0), (count, self.width))
        x = jnp.zeros((count, self.width))
        chosen, log_p, entropy = [], jnp.zeros(count), jnp.zeros(count)
        for place, (options, kind) in enumerate(zip(self.space.choices, self.space.kinds)):
            carry, y = self.cell(carry, x)
            log_q = jax.nn.log_softmax(self.outputs[kind](y)[:, :options])
            if decisions is None:
                assert keys is not None
                decision = jax.random.categorical(keys[place], log_q)
            else:
                decision = decisions[:, place]
            log_p += jnp.take_along_axis(log_q, decision[:, None], 1)[:, 0]
            entropy -= (jnp.exp(log_q) * log_q).sum(-1)
            x = self.embeddings[kind](decision)
            chosen.append(decision)
        return jnp.stack(chosen, 1), log_p, entropy


@partial(jax.jit, static_argnums=(0, 3))
def sample(controller: Controller, params: dict, key: Array, count: int) -> Int[Array, "n d"]:
    """Sequences of decisions that the controller draws."""
    return controller.apply({"params": params}, key, count=count)[0]
