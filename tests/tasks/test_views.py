"""Whole images, windows, scales and flips give what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.ops.resize import resize
from jaxvision.tasks.segmentation.views import Views

IMAGE = jax.random.normal(jax.random.key(0), (2, 12, 16, 3))
KERNEL = jax.random.normal(jax.random.key(1), (3, 5))


def network(image):
    """Pointwise, and not symmetric: the columns have a say."""
    return image @ KERNEL + jnp.arange(image.shape[2])[None, None, :, None] * 0.1


def test_one_view_is_the_network_itself():
    np.testing.assert_array_equal(Views().logits(network, IMAGE), network(IMAGE))


def test_windows_of_a_pointwise_network_change_nothing():
    pointwise = lambda x: x @ KERNEL  # noqa: E731
    views = Views(window=(8, 8), overlap=0.5)
    np.testing.assert_allclose(views.logits(pointwise, IMAGE), IMAGE @ KERNEL, 1e-4, 1e-5)


def test_flip_averages_probabilities():
    found = Views(flip=True).logits(network, IMAGE)
    mirrored = network(IMAGE[:, :, ::-1])[:, :, ::-1]
    expected = (jax.nn.softmax(network(IMAGE)) + jax.nn.softmax(mirrored)) / 2
    np.testing.assert_allclose(jax.nn.softmax(found), expected, 1e-4, 1e-6)
    again = Views(flip=True).logits(network, IMAGE[:, :, ::-1])[:, :, ::-1]
    np.testing.assert_allclose(found, again, 1e-4, 1e-5)


@pytest.mark.parametrize("scales", [(0.5,), (0.5, 1.0, 1.5)])
def test_scales_are_seen_resized_and_brought_back(scales):
    found = Views(scales=scales).logits(network, IMAGE)
    total = 0
    for scale in scales:
        seen = network(resize(IMAGE, (int(12 * scale), int(16 * scale))))
        total += jax.nn.softmax(resize(seen, (12, 16)))
    np.testing.assert_allclose(jax.nn.softmax(found), total / len(scales), 1e-4, 1e-6)
