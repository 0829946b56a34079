"""Auxiliary heads in training, against golden files of tests/parity/auxiliary.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.auxiliary import CASES
from parity.cases import GOLDEN, LOGITS
from parity.deterministic import image, sample, weights

from jaxvision import models
from jaxvision.interop import torch_weights


def network(name, **more):
    options = {"dropout": 0.0, "aux_dropout": 0.0} | dict(CASES[name].options) | more
    known = models.options(name)
    return models.create(name, 10, **{k: v for k, v in options.items() if k in known})


@functools.cache
def variables(name):
    """Ours, filled by the reference's names."""
    model, entry = network(name), models.variant(name)
    x = jnp.zeros(CASES[name].image)[:1].transpose(0, 2, 3, 1)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), like)
    shapes = entry.export(torch_weights.to_state_dict(zeros))
    state = {key: weights(key, value.shape) for key, value in shapes.items()}
    return torch_weights.to_variables(entry.convert(state), like), state


SLOW = [n for n in CASES if CASES[n].slow or n == "inception_v3"]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES]
)
def test_training_gives_all_logits(name):
    golden = np.load(GOLDEN / f"{name}_auxiliary.npz")
    ours, _ = variables(name)
    x = jnp.asarray(image(CASES[name].image).transpose(0, 2, 3, 1))

    @jax.jit
    def train(ours, x):
        return network(name).apply(ours, x, train=True, mutable=["batch_stats"])[0]

    outputs = train(ours, x)
    assert sorted(outputs) == sorted(golden)
    for key, expected in golden.items():
        assert outputs[key].shape == (len(x), 10)
        found = sample(outputs[key], LOGITS)
        np.testing.assert_allclose(found, expected, 1e-4, 1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
def test_evaluation_and_pooled_features_have_no_heads(name):
    ours, _ = variables(name)
    x = jax.ShapeDtypeStruct((1, *CASES[name].image[2:], 3), jnp.float32)
    logits = jax.eval_shape(lambda x: network(name).apply(ours, x), x)
    assert logits.shape == (1, 10)
    model = models.create(name, 0, aux_logits=True)
    pooled, headless = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), x)
    assert pooled.ndim == 2
    assert not any("aux" in part.lower() for part in headless["params"])


@pytest.mark.parametrize("name", CASES)
def test_published_heads_are_left_where_there_are_none(name):
    ours, state = variables(name)
    model, entry = network(name, aux_logits=False), models.variant(name)
    x = jnp.zeros((1, *CASES[name].image[2:], 3))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    fitted = torch_weights.to_variables(entry.convert(state), like, ignore=entry.auxiliary)
    for key, value in fitted["params"].items():
        jax.tree.map(np.testing.assert_array_equal, value, ours["params"][key])
