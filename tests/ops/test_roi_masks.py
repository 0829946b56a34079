"""Masks and key points of objects, as the boxes around them see them."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.ops import bits
from jaxvision.ops.resize import resize_matrix
from jaxvision.ops.roi import cells_of_keypoints, highest_places, masks_in_boxes, roi_align


def test_bits_are_those_of_numpy():
    rng = np.random.default_rng(0)
    mask = rng.random((2, 3, 13)) < 0.5
    packed = bits.pack(jnp.asarray(mask))
    np.testing.assert_array_equal(packed, np.packbits(mask, axis=-1))
    np.testing.assert_array_equal(bits.unpack(packed, 13), mask)


def test_masks_in_boxes_are_what_roi_align_sees_of_them():
    rng = np.random.default_rng(1)
    masks = rng.random((2, 3, 20, 30)) < 0.6
    corner = rng.uniform(-2, 15, (2, 18, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.5, 14, (2, 18, 2))], -1)
    boxes = jnp.asarray(boxes, jnp.float32)
    matches = rng.integers(0, 3, (2, 18))
    found = jax.jit(masks_in_boxes, static_argnums=(3, 4))(
        bits.pack(jnp.asarray(masks)), boxes, matches, 6, 30
    )
    every = roi_align(jnp.moveaxis(jnp.asarray(masks, jnp.float32), 1, -1), boxes, 6)
    expected = np.take_along_axis(every, matches[..., None, None, None], -1)[..., 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # A box of whole pixels: the share of each cell that is covered.
    whole = jnp.array([[[4.0, 2, 16, 14]]])
    mask = np.zeros((1, 1, 20, 30), bool)
    mask[..., :8, :7] = True
    cells = masks_in_boxes(bits.pack(jnp.asarray(mask)), whole, jnp.zeros((1, 1), int), 2, 30)[0, 0]
    samples = np.arange(6)  # of which each is between two pixels
    covered = lambda start, end: np.clip(end - 0.5 - start - samples, 0, 1).mean()  # noqa: E731
    np.testing.assert_allclose(cells, [[covered(2, 8) * covered(4, 7), 0], [0, 0]], atol=1e-6)


def test_cells_of_key_points():
    boxes = jnp.array([[10.0, 20.0, 50.0, 40.0]])
    points = [[10, 20, 1], [49.9, 39.9, 1], [50, 40, 1], [50.1, 30, 1], [30, 30, 0], [9.9, 30, 1]]
    cells = cells_of_keypoints(jnp.array([points], jnp.float32), boxes, 8)
    np.testing.assert_array_equal(cells.valid[0], [True, True, True, False, False, False])
    np.testing.assert_array_equal(cells.place[0], [0, 63, 63, 0, 0, 0])


def test_the_highest_place_is_that_of_the_enlarged_map():
    """Boxes smaller than the map, and larger than several tiles."""
    rng = np.random.default_rng(2)
    size, boxes = (
        14,
        np.float32([[0, 0, 5.3, 8], [3, 2, 133.5, 70.2], [7, 1, 20, 200], [1, 1, 9, 9]]),
    )
    maps = rng.standard_normal((4, size, size, 3)).astype(np.float32)
    maps[1, ..., 0] = 0.5  # everywhere as high: the first place
    valid = np.array([True, True, True, False])
    found = np.asarray(jax.jit(highest_places)(maps, boxes, valid))
    assert not found[3].any()
    for box, of_box, ours in zip(boxes[:3], maps, found):
        sides = box[2:] - box[:2]
        whole = np.ceil(sides).astype(int)
        wy, wx = (resize_matrix(size, int(n), "bicubic") for n in (whole[1], whole[0]))
        large = np.einsum("yi,ijk,xj->yxk", wy, of_box.astype(np.float64), wx)
        for k in range(3):
            y, x = np.unravel_index(large[..., k].argmax(), large.shape[:2])
            np.testing.assert_allclose(ours[k, 2], large[..., k].max(), rtol=1e-5)
            if np.ptp(of_box[..., k]):
                place = box[:2] + (np.array([x, y]) + 0.5) * sides / whole
                np.testing.assert_allclose(ours[k, :2], place, rtol=1e-5)
