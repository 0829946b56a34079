"""A patch classifier gives the same in each of its forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.inspect import layers
from jaxvision.models.segmentation.patch_classifier import (
    PATCH,
    STRIDE,
    around,
    shift_and_stitch,
)
from jaxvision.ops.tiling import each_window

SMALL = {"widths": (4, 6, 8), "hidden": 10}


@pytest.fixture(scope="module")
def networks():
    """(dense, of patches), as functions of images, with the same parameters."""
    dense, patches = (models.create("patch_classifier", 5, dense=d, **SMALL) for d in (True, False))
    like = jax.eval_shape(lambda: dense.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    draw = np.random.default_rng(0).normal
    variables = jax.tree.map(lambda p: jnp.asarray(draw(0, 0.15, p.shape), p.dtype), like)
    return tuple(jax.jit(lambda x, m=m: m.apply(variables, x)) for m in (dense, patches))


@pytest.fixture(scope="module")
def image():
    return jnp.asarray(np.random.default_rng(1).normal(size=(2, 13, 18, 3)), jnp.float32)


def test_sliding_windows_give_what_the_dense_network_gives(networks, image):
    dense, patches = networks
    expected = dense(image)
    assert expected.shape == (2, 13, 18, 5)
    assert float(jnp.std(expected)) > 0.1
    slid = each_window(lambda x: patches(x)[:, 0, 0], around(image, PATCH), PATCH, batch=100)
    np.testing.assert_allclose(slid, expected, atol=1e-5)
    stitched = shift_and_stitch(patches, around(image, PATCH), PATCH, STRIDE)
    np.testing.assert_allclose(stitched, expected, atol=1e-5)


def test_strides_of_the_patch_network_are_those_of_the_window(networks, image):
    _, patches = networks
    image = around(image, PATCH)
    slid = each_window(lambda x: patches(x)[:, 0, 0], image, PATCH, STRIDE)
    assert slid.shape == (2, 4, 5, 5)
    np.testing.assert_allclose(patches(image), slid, atol=1e-5)


def test_sliding_window_reads_each_patch_in_its_place():
    image = jnp.arange(2 * 5 * 6, dtype=jnp.float32).reshape(2, 5, 6, 1)
    corners = each_window(lambda x: x[:, 0, 0, 0], image, 3, batch=4)
    np.testing.assert_array_equal(corners, image[:, :3, :4, 0])
    ends = each_window(lambda x: x[:, -1, -1], image, 2, stride=3)
    np.testing.assert_array_equal(ends, image[:, 1::3, 1::3])
    with pytest.raises(UserError, match="No window of 7x7 fits"):
        each_window(lambda x: x, image, 7)


@pytest.mark.parametrize("dense", [True, False])
def test_receptive_field(dense):
    lines = layers(models.create("patch_classifier", 5, dense=dense, **SMALL), (64, 64, 3))
    assert lines[-1].receptive_field == (46, 46)
    assert lines[-1].stride == (1, 1) if dense else (4, 4)
    assert lines[-1].output == ((64, 64, 5) if dense else (5, 5, 5))


def test_images_without_a_patch(networks):
    with pytest.raises(UserError, match="46x46 or more; not of 45x50"):
        networks[1](jnp.zeros((1, 45, 50, 3)))
