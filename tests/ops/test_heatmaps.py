"""Heat maps: Gaussians about points, the way back, and mirror images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.ops.heatmaps import decode, flip, gaussians


def test_gaussians_by_hand():
    points = jnp.array([[[1.5, 0.5], [0.0, 2.0]]])
    maps = np.asarray(gaussians(points, (2, 3), 2.0))
    assert maps.shape == (1, 2, 3, 2)
    assert maps[0, 0, 1, 0] == 1  # the centre of a pixel
    np.testing.assert_allclose(maps[0, 0, 0, 0], np.exp(-1 / 8), rtol=1e-6)
    np.testing.assert_allclose(maps[0, 1, 2, 0], np.exp(-2 / 8), rtol=1e-6)
    # The other one is on the map's border: half a pixel from a centre along both axes.
    np.testing.assert_allclose(maps[0, 1, 0, 1], np.exp(-0.5 / 8), rtol=1e-6)


def test_decode_moves_a_quarter_to_the_higher_neighbour():
    maps = np.zeros((4, 5, 3), np.float32)
    maps[1:3, 1:4, 0] = [[2, 9, 3], [0, 1, 0]]  # to the right, and down
    maps[2, 2, 1] = 5  # neighbours alike: it stays
    maps[0, 2:4, 2] = [7, 6]  # on the border: it stays
    found = np.asarray(decode(jnp.asarray(maps)))
    np.testing.assert_allclose(found, [[2.75, 1.75, 9], [2.5, 2.5, 5], [2.5, 0.5, 7]])


def reference(heatmap):
    """As pytorch-pose's `final_preds` reads one map, whose pixels are counted from 1."""
    height, width = heatmap.shape
    row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
    x, y = column + 1.0, row + 1.0
    if 1 < x < width and 1 < y < height:
        x += np.sign(heatmap[row, column + 1] - heatmap[row, column - 1]) * 0.25
        y += np.sign(heatmap[row + 1, column] - heatmap[row - 1, column]) * 0.25
    return x - 0.5, y - 0.5, heatmap.max()


def test_decode_is_that_of_the_reference():
    maps = np.random.default_rng(0).normal(size=(5, 6, 4, 7)).astype(np.float32)
    maps[0, ..., 0] = -1  # all alike: the first
    found = np.asarray(jax.jit(decode)(maps))
    for image in range(5):
        for point in range(7):
            expected = reference(maps[image, ..., point])
            np.testing.assert_allclose(found[image, point], expected)


def returned(points, size, sigma):
    """How far points are off that went into heat maps and out again, along each axis."""
    found = decode(gaussians(jnp.asarray(points, jnp.float32), size, sigma))
    return np.abs(np.asarray(found)[..., :2] - points), found


def check_return(points, size, sigma):
    points = np.asarray(points)
    away, found = returned(points, size, sigma)
    height, width = size
    inner = ((points > 1) & (points < [width - 1, height - 1])).all(-1)
    assert (away[inner] <= 0.25 + 1e-3).all()
    assert (away <= 0.5 + 1e-3).all()
    assert (np.asarray(found)[..., 2] <= 1).all()


def test_points_return_to_a_quarter_of_a_pixel():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (50, 6, 2)) * [9, 7]
    check_return(points, (7, 9), 1.0)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_points_return_of_any_map(data):
    size = data.draw(st.tuples(st.integers(3, 20), st.integers(3, 20)))
    sigma = data.draw(st.floats(0.5, 3.0))
    share = st.floats(0, 1, exclude_max=True, width=32)
    points = data.draw(st.lists(st.tuples(share, share), min_size=1, max_size=8))
    check_return(np.array(points) * [size[1], size[0]], size, sigma)


def test_a_mirrored_map_is_that_of_the_mirrored_points():
    points = jnp.array([[1.2, 2.5], [4.1, 0.7], [3.0, 1.0]])
    mirrored = jnp.stack([6 - points[:, 0], points[:, 1]], -1)
    order = (1, 0, 2)
    seen = gaussians(mirrored[jnp.array(order)], (4, 6), 1.0)  # left and right change places
    np.testing.assert_allclose(flip(seen, order), gaussians(points, (4, 6), 1.0), rtol=1e-5)
