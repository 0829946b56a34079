"""The loss of heat maps, by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.losses import heatmap_loss

MAPS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 2)), jnp.float32)
TARGETS = jnp.zeros((2, 3, 4, 2))


def test_it_is_the_mean_over_the_labelled_maps():
    labelled = jnp.array([[True, False], [True, True]])
    found = heatmap_loss(MAPS, TARGETS, labelled)
    maps = np.moveaxis(np.asarray(MAPS), -1, 1)[np.asarray(labelled)]
    np.testing.assert_allclose(found.value, np.square(maps).mean(), rtol=1e-6)
    assert float(found.weight) == 3


def test_what_is_not_labelled_has_no_gradient_and_nothing_labelled_no_loss():
    labelled = jnp.array([[True, False], [False, False]])
    gradient = jax.grad(lambda maps: heatmap_loss(maps, TARGETS, labelled).value)(MAPS)
    np.testing.assert_allclose(gradient[0, ..., 0], MAPS[0, ..., 0] / 6, rtol=1e-5)
    assert not gradient[0, ..., 1].any()
    assert not gradient[1].any()
    nothing = jnp.zeros((2, 2), bool)
    value, gradient = jax.value_and_grad(lambda m: heatmap_loss(m, TARGETS, nothing).value)(MAPS)
    assert float(value) == 0
    assert not gradient.any()


def test_half_precision_is_computed_in_single():
    found = heatmap_loss(MAPS.astype(jnp.bfloat16), TARGETS, jnp.ones((2, 2), bool))
    assert found.total.dtype == jnp.float32
