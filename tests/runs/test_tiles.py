"""Tiles give what the whole image gives, and cost little memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxvision.ops.tiling import mirror
from jaxvision.runs.tiles import predict_tiled

RNG = np.random.default_rng(0)


def pointwise(tiles):
    return jax.nn.softmax(jnp.asarray(tiles, jnp.float32) / 50)


@pytest.mark.parametrize("size", [(50, 37), (7, 90), (16, 16), (1, 5)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_pointwise_network_is_the_same_in_tiles(size, overlap, batch_size):
    image = RNG.integers(0, 256, (*size, 4), np.uint8)
    found = predict_tiled(pointwise, image, (16, 12), overlap, batch_size)
    expected = pointwise(image)
    np.testing.assert_array_equal(found["segmentation"], expected.argmax(-1))
    np.testing.assert_allclose(found["probability"], expected.max(-1), atol=2e-3)


@pytest.mark.parametrize("shape", [(31, 26), (12, 9, 14)])
def test_a_network_without_padding_sees_the_mirrored_image(shape):
    image = RNG.integers(0, 256, (*shape, 2), np.uint8)
    kernel = jnp.asarray(RNG.normal(size=(5,) * len(shape) + (2, 3)), jnp.float32)
    spec = ("NHWC", "HWIO", "NHWC") if len(shape) == 2 else ("NDHWC", "DHWIO", "NDHWC")

    def valid(x):
        x = jnp.asarray(x, jnp.float32) / 255
        y = lax.conv_general_dilated(x, kernel, (1,) * len(shape), "VALID", dimension_numbers=spec)
        return jax.nn.softmax(y)

    found = predict_tiled(valid, image, (11,) * len(shape), overlap=0.3)
    whole = mirror(jnp.asarray(image[None], jnp.float32), (2,) * len(shape), (2,) * len(shape))
    expected = valid(whole)[0]
    np.testing.assert_array_equal(found["segmentation"], expected.argmax(-1))
    np.testing.assert_allclose(found["probability"], expected.max(-1), atol=2e-3)
