"""LPIPS against the package of its authors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import lpips as golden
from parity.deterministic import sample, weights

from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.pretrained import Weights
from jaxvision.tasks.lpips import NETWORKS, Lpips

FOUND = np.load(golden.GOLDEN)


def loaded(net):
    metric = Lpips.create(net)
    fresh = jax.eval_shape(lambda: metric.init(jax.random.key(0)))
    shapes = torch_weights.torch_shapes(fresh["network"])
    network = {name: weights(name, shape) for name, shape in shapes.items()}
    lins = {
        f"lin{i}.model.1.weight": golden.weight(i, count)
        for i, count in enumerate(NETWORKS[net].channels)
    }
    states = {"lins": lins, "network": network}
    read = lambda where, name: Weights(states[where], where)  # noqa: E731
    return metric, metric.load("lins", "network", fresh, read)


@pytest.mark.parametrize("net", [*golden.NETS[:2], pytest.param("vgg", marks=pytest.mark.slow)])
def test_distances_and_gradients_are_the_packages(net):
    metric, variables = loaded(net)
    a, b = (jnp.asarray(x, jnp.float32) for x in golden.pairs())

    @jax.jit
    def computed(a, b):
        total = lambda a: metric.distance(variables, a, b).sum()  # noqa: E731
        return metric.distance(variables, a, b), jax.grad(total)(a)

    distance, gradient = computed(a, b)
    np.testing.assert_allclose(distance, FOUND[net], rtol=1e-4)
    expected = FOUND[f"{net}/gradient"]
    found = sample(np.asarray(gradient), golden.GRADIENTS)
    np.testing.assert_allclose(found, expected, 1e-3, 1e-3 * np.abs(expected).max())
    np.testing.assert_array_equal(metric.distance(variables, a, a), 0)


def test_what_is_no_file_of_lpips_is_refused():
    metric = Lpips.create("alex")
    fresh = jax.eval_shape(lambda: metric.init(jax.random.key(0)))
    read = lambda where, name: Weights({}, where)  # noqa: E731
    with pytest.raises(UserError, match=r"other\.pth is no file of LPIPS for 'alex': lin0"):
        metric.load("other.pth", "default", fresh, read)
    with pytest.raises(UserError, match=r"'alx'.*'alex'"):
        Lpips.create("alx")
