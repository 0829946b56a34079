"""Parameters of modules, beside Flax's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import NameInUseError, ScopeParamNotFoundError, ScopeParamShapeError

from jaxvision.layers.parameters import parameter

STARTS: list[tuple[int, ...]] = []


def start(key, shape, dtype):
    STARTS.append(tuple(shape))
    return jax.random.normal(key, shape, dtype)


class Layer(nn.Module):
    names: tuple[str, ...] = ("weight",)
    flax: bool = False

    @nn.compact
    def __call__(self, x):
        for name in self.names:
            shape = (x.shape[-1], 3)
            if self.flax:
                x = x @ self.param(name, start, shape, jnp.float32)
            else:
                x = x @ parameter(self, name, start, shape)
        return x


X = jnp.ones((2, 4))


def test_values_are_those_of_flax():
    ours, theirs = (Layer(("a", "b"), flax).init(jax.random.key(0), X) for flax in (False, True))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    y = Layer(("a", "b")).apply(ours, X)
    np.testing.assert_array_equal(y, Layer(("a", "b"), True).apply(theirs, X))


def test_what_is_there_is_not_started_again():
    variables = Layer().init(jax.random.key(0), X)
    STARTS.clear()
    jax.eval_shape(Layer().apply, variables, X)
    assert STARTS == []
    jax.eval_shape(Layer(flax=True).apply, variables, X)
    assert STARTS == [(4, 3)]


def test_errors_are_those_of_flax():
    variables = Layer().init(jax.random.key(0), X)
    with pytest.raises(ScopeParamShapeError, match=r"\(5, 3\).*\(4, 3\)"):
        Layer().apply(variables, jnp.ones((2, 5)))
    with pytest.raises(ScopeParamNotFoundError, match="other"):
        Layer(("other",)).apply(variables, X)
    with pytest.raises(NameInUseError):
        Layer(("twice", "twice")).init(jax.random.key(0), X)


def test_boxes_are_opened():
    boxed = nn.with_partitioning(start, ("rows", "columns"))

    class Partitioned(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x @ parameter(self, "weight", boxed, (x.shape[-1], 3))

    variables = Partitioned().init(jax.random.key(0), X)
    assert isinstance(variables["params"]["weight"], nn.Partitioned)
    np.testing.assert_array_equal(
        Partitioned().apply(variables, X), X @ variables["params"]["weight"].value
    )
