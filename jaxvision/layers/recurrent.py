"""Recurrent cells with PyTorch's parameters: `weight_ih` (out, in), `weight_hh`, `bias_ih`, ..."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float

from jaxvision.layers.parameters import parameter
from jaxvision.ops.linear import add_bias, matmul

State = tuple[Float[Array, "b h"], ...]
Advance = Callable[[State, Float[Array, "b g"]], tuple[State, Float[Array, "b h"]]]


def _uniform(features: int) -> Initializer:
    """Between -1 / sqrt(features) and that, as in PyTorch."""

    def draw(key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
        limit = features**-0.5
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return draw


class _Cell(nn.Module):
    """A cell is called with its inputs, of one step or of all.

    It returns what they add to its gates, and the function that a step is: `(state, gates of a
    step)` to `(state, output)`, as `jax.lax.scan` takes it.

    Attributes:
      features: of the state.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    GATES = 1

    features: int
    dtype: Any = None

    def _advance(self, state: State, gates: Array) -> tuple[State, Array]:
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> tuple[Float[Array, "*b g"], Advance]:
        start, out = _uniform(self.features), self.GATES * self.features
        weights = (
            parameter(self, "weight_ih", start, (out, x.shape[-1])),
            parameter(self, "weight_hh", start, (out, self.features)),
            parameter(self, "bias_ih", start, (out,)),
            parameter(self, "bias_hh", start, (out,)),
        )
        x, w_x, w_h, b_x, b_h = nn.dtypes.promote_dtype(x, *weights, dtype=self.dtype)

        def advance(state: State, gates: Array) -> tuple[State, Array]:
            return self._advance(state, gates + state[0] @ w_h.T)

        return add_bias(matmul(x, w_x.T), b_x + b_h), advance


class RNNCell(_Cell):
    """Elman's, as `torch.nn.RNNCell`: the tanh of a linear layer; the state is (h,).

    Elman, "Finding Structure in Time", 1990, https://doi.org/10.1207/s15516709cog1402_1
    """

    def _advance(self, state: State, gates: Array) -> tuple[State, Array]:
        h = jnp.tanh(gates)
        return (h,), h


class LSTMCell(_Cell):
    """As `torch.nn.LSTMCell`: gates in the order input, forget, cell, output; the state is (h, c).

    Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997,
    https://doi.org/10.1162/neco.1997.9.8.1735; the forget gate is of Gers et al., "Learning to
    Forget", 2000, https://doi.org/10.1162/089976600300015015.
    """

    GATES = 4

    def _advance(self, state: State, gates: Array) -> tuple[State, Array]:
        let_in, keep, cell, let_out = jnp.split(gates, 4, -1)
        c = nn.sigmoid(keep) * state[1] + nn.sigmoid(let_in) * jnp.tanh(cell)
        h = nn.sigmoid(let_out) * jnp.tanh(c)
        return (h, c), h
