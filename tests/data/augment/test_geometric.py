import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.data.augment import geometric


def moving(draw):
    """`(key, images, masks, boxes, **parameters)` to what they become."""

    def move(key, images, masks=None, boxes=None, **parameters):
        motion = draw(key, images.shape, **parameters)
        masks = None if masks is None else motion.classes(masks)
        return motion.images(images), masks, None if boxes is None else motion.boxes(boxes)

    return move


AFFINE = functools.partial(
    moving(geometric.random_affine),
    degrees=30.0,
    scale=(0.8, 1.3),
    translate=(0.1, 0.1),
    shear=10.0,
)
ALL = {
    "flip_horizontal": moving(geometric.flip_horizontal),
    "flip_vertical": moving(geometric.flip_vertical),
    "random_affine": AFFINE,
    "random_crop": functools.partial(moving(geometric.random_crop), padding=6),
}
IDENTITIES = {
    "flip_horizontal": functools.partial(moving(geometric.flip_horizontal), probability=0.0),
    "flip_vertical": functools.partial(moving(geometric.flip_vertical), probability=0.0),
    "random_affine": moving(geometric.random_affine),
    "random_crop": functools.partial(moving(geometric.random_crop), padding=0),
}


@pytest.fixture(scope="module")
def scene(images):
    """Photographs, an object in each as a mask, and its box."""
    masks = np.zeros(images.shape[:3], np.int32)
    boxes = np.array([[[10, 12, 30, 40]], [[20, 10, 50, 30]], [[30, 20, 44, 44]]], np.float32)
    for mask, (box,) in zip(masks, boxes.astype(int), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = 7
    return images, jnp.asarray(masks), jnp.asarray(boxes)


@pytest.mark.parametrize("name", ALL)
def test_masks_and_boxes_follow_images(scene, name):
    images, masks, boxes = scene
    function = jax.jit(ALL[name])
    height, width = images.shape[1:3]
    moved = 0
    for seed in range(3):
        drawn = jnp.where(masks[..., None] == 7, 1.0, jnp.zeros_like(images))
        out, out_masks, out_boxes = function(jax.random.key(seed), drawn, masks, boxes)
        inside = np.asarray(out_masks) == 7
        # The drawn object covers the mask, but for the half covered pixels of its border.
        covered = np.asarray(out[..., 0])
        assert (covered[inside] > 0.24).all()
        assert (covered[~inside] < 0.76).all()
        for one, (box,) in zip(inside, np.asarray(out_boxes), strict=True):
            rows, columns = np.nonzero(one)
            tight = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            box = np.clip(box, 0, [width, height, width, height])
            if name == "random_affine":  # within a pixel of the mask's
                np.testing.assert_allclose(box, tight, atol=1.0)
            else:
                np.testing.assert_array_equal(box, tight)
        moved += (out_boxes != boxes).any()
    assert moved


@pytest.mark.parametrize("name", ALL)
def test_identity_parameters_are_exact(scene, name):
    for before, after in zip(scene, IDENTITIES[name](jax.random.key(0), *scene), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", ALL)
def test_determined_by_key_and_independent_of_what_is_given(scene, name):
    images, masks, boxes = scene
    function = jax.jit(ALL[name])
    everything = function(jax.random.key(3), images, masks, boxes)
    alone, no_masks, no_boxes = function(jax.random.key(3), images)
    assert no_masks is None
    assert no_boxes is None
    np.testing.assert_allclose(everything[0], alone, atol=1e-6)
    others = [np.asarray(function(jax.random.key(seed), images)[0]) for seed in range(4)]
    assert any((other != others[0]).any() for other in others[1:])
    several = jnp.stack([masks, masks + 1], -1)
    _, both, _ = function(jax.random.key(3), images, several, None)
    np.testing.assert_array_equal(both[..., 0], everything[1])


@pytest.mark.parametrize("name", ALL)
def test_batches_of_batches(scene, name):
    keys = jax.random.split(jax.random.key(0), 2)
    stacked = [jnp.stack([value, value]) for value in scene]
    outs = jax.jit(jax.vmap(ALL[name]))(keys, *stacked)
    alone = jax.jit(ALL[name])(keys[1], *scene)
    for one, expected in zip(outs, alone, strict=True):
        np.testing.assert_allclose(one[1], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["flip_horizontal", "flip_vertical"])
def test_flips_are_mirrors_of_the_given_probability(many, images, name):
    function = functools.partial(ALL[name], probability=0.3)
    out, _, _ = jax.jit(function)(jax.random.key(0), many)
    flipped = (np.asarray(out) != np.asarray(many)).any((1, 2, 3))
    assert abs(flipped.mean() - 0.3) < 0.04
    certain, _, _ = ALL[name](jax.random.key(0), images, probability=1.0)
    axis = 2 if name == "flip_horizontal" else 1
    np.testing.assert_array_equal(certain, np.flip(images, axis))


def test_crops_are_windows_of_the_padded_image(photos, images):
    padded = np.pad(np.asarray(images), ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=0.5)
    crop = jax.jit(functools.partial(moving(geometric.random_crop), padding=2, fill=0.5))
    seen = set()
    for seed in range(12):
        out, _, _ = crop(jax.random.key(seed), images)
        for index in range(3):
            found = [
                (y, x)
                for y in range(5)
                for x in range(5)
                if (padded[index, y : y + 48, x : x + 64] == out[index]).all()
            ]
            assert len(found) == 1
            seen.update(found)
    assert len(seen) > 12  # of 25 equally likely ones, in 36 draws


def test_affine_fills_and_ranges(scene):
    images, masks, _ = scene
    away = functools.partial(moving(geometric.random_affine), degrees=45.0, fill=0.5, mask_fill=9)
    out, out_masks, _ = jax.jit(away)(jax.random.key(1), jnp.ones_like(images), masks * 0)
    outside = np.asarray(out_masks) == 9
    assert 0.05 < outside.mean() < 0.6
    assert (np.asarray(out)[outside] < 0.76).all()
    many = jnp.broadcast_to(jnp.array([[[4.0, 4.0, 4.0, 4.0]]]), (500, 1, 4))  # a point
    moves = functools.partial(moving(geometric.random_affine), translate=(0.25, 0.0))
    _, _, moved = jax.jit(moves)(jax.random.key(0), jnp.zeros((500, 8, 8, 1)), None, many)
    shift = np.asarray(moved)[:, 0, 0] - 4
    assert -2 <= shift.min() < -1.95
    assert 1.95 < shift.max() <= 2
    np.testing.assert_array_equal(moved[:, 0, 1], 4)
