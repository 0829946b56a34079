"""The margin loss of capsules."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.losses import margin_loss

LENGTHS = jnp.array([[0.95, 0.3, 0.05], [0.4, 0.1, 0.8]])
LABELS = jnp.array([0, 1])


def test_equation_4_by_hand():
    loss, weight = margin_loss(LENGTHS, LABELS)
    first = 0.5 * 0.2**2
    second = 0.8**2 + 0.5 * (0.3**2 + 0.7**2)
    np.testing.assert_allclose(loss, [first, second], rtol=1e-6)
    np.testing.assert_array_equal(weight, 1)


def test_certain_probabilities_are_labels():
    of_labels, _ = margin_loss(LENGTHS, LABELS)
    certain, weight = margin_loss(LENGTHS, jax.nn.one_hot(LABELS, 3))
    np.testing.assert_allclose(certain, of_labels, rtol=1e-6)
    assert weight.shape == (2,)


def test_class_weights():
    plain, _ = margin_loss(LENGTHS, LABELS)
    weighted, weight = margin_loss(LENGTHS, LABELS, class_weights=(2.0, 0.5, 1.0))
    np.testing.assert_array_equal(weight, [2, 0.5])
    np.testing.assert_allclose(weighted, plain * weight, rtol=1e-6)
