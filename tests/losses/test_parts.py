"""A mean over rows that is computed a part at a time is that of all rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.losses import Ratio
from jaxvision.losses.parts import ratio_in_parts


def _mean(weights, rows):
    error = jnp.square(jnp.tanh(rows["x"] @ weights["w"]) - rows["y"]).sum(-1)
    return Ratio(jnp.where(rows["valid"], error, 0).sum(), rows["valid"].sum().astype(error.dtype))


@pytest.mark.parametrize(("fewest", "most"), [(0, 0), (1, 4), (5, 6), (3, 7)])
def test_a_mean_in_parts_has_the_value_and_gradient_of_the_whole(fewest, most):
    rng = np.random.default_rng(most)
    rows = {
        "x": jnp.array(rng.normal(size=(2, 7, 3)), jnp.float32),
        "y": jnp.array(rng.normal(size=(2, 7, 2)), jnp.float32),
        "valid": jnp.arange(7) < jnp.array([[fewest], [most]]),
    }
    weights = {"w": jnp.array(rng.normal(size=(3, 2)), jnp.float32)}

    def whole(weights):
        return 3 * _mean(weights, rows).value

    def parts(weights):
        return 3 * ratio_in_parts(_mean, weights, rows, jnp.int32(most), 2).value

    found, gradient = jax.jit(jax.value_and_grad(parts))(weights)
    value, expected = jax.value_and_grad(whole)(weights)
    assert float(found) == pytest.approx(float(value), rel=1e-6)
    np.testing.assert_allclose(gradient["w"], expected["w"], rtol=1e-5, atol=1e-6)
    assert float(parts(weights)) == pytest.approx(float(value), rel=1e-6)


def test_what_is_not_needed_is_not_computed():
    rows = {"x": jnp.ones((1, 8, 3)), "y": jnp.zeros((1, 8, 2)), "valid": jnp.ones((1, 8), bool)}
    weights = {"w": jnp.ones((3, 2))}
    found = ratio_in_parts(_mean, weights, rows, jnp.int32(3), 2)
    assert float(found.weight) == 4  # two parts of four
