import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.ops import geometry

HEIGHT, WIDTH = 48, 64
BATCH = 3


@pytest.fixture(scope="module")
def image():
    crop = skimage.data.astronaut()[60:156:2, 160:288:2]
    return jnp.broadcast_to(jnp.asarray(crop, jnp.float32) / 255, (BATCH, HEIGHT, WIDTH, 3))


@pytest.fixture(scope="module")
def matrix():
    return geometry.affine_matrix(
        (WIDTH / 2, HEIGHT / 2),
        degrees=jnp.array([0.0, 25.0, -70.0]),
        scale=jnp.array([1.0, 1.3, 0.7]),
        translation=(jnp.array([0.0, 5.25, -3.0]), jnp.array([0.0, -2.5, 1.0])),
        shear=(jnp.array([0.0, 10.0, -5.0]), jnp.array([0.0, 0.0, 4.0])),
    )


warp_images = jax.jit(geometry.warp_images, static_argnums=2)
warp_masks = jax.jit(geometry.warp_masks, static_argnums=2)


def test_identity_is_exact(image):
    identity = geometry.affine_matrix((WIDTH / 2, HEIGHT / 2), degrees=jnp.zeros(BATCH))
    np.testing.assert_array_equal(warp_images(image, identity), image)
    masks = jnp.asarray(image[..., 0] * 255, jnp.int32)
    np.testing.assert_array_equal(warp_masks(masks, identity), masks)


def test_images_equal_scipy(image, matrix):
    ours = warp_images(image, matrix, 0.25)
    for index in range(BATCH):
        # scipy maps output to input in (row, column), with pixel centres at whole numbers.
        inverse = np.linalg.inv(np.asarray(matrix[index], np.float64))
        linear = inverse[:2, :2][::-1, ::-1]
        offset = (inverse[:2, :2] @ [0.5, 0.5] + inverse[:2, 2] - 0.5)[::-1]
        for channel in range(3):
            expected = scipy.ndimage.affine_transform(
                np.asarray(image[index, ..., channel], np.float64),
                linear,
                offset,
                order=1,
                mode="grid-constant",
                cval=0.25,
            )
            np.testing.assert_allclose(ours[index, ..., channel], expected, atol=2e-4)


def test_images_equal_opencv(image, matrix):
    ours = np.asarray(warp_images(image, matrix))
    for index in range(BATCH):
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        centred = np.linalg.inv(half) @ np.asarray(matrix[index]) @ half
        expected = cv2.warpAffine(np.asarray(image[index]), centred[:2], (WIDTH, HEIGHT))
        # OpenCV rounds coordinates to a 32nd of a pixel.
        assert np.abs(ours[index] - expected).mean() < 2e-3


def test_masks_follow_images(image, matrix):
    # Of an image of whole numbers, bilinear interpolation keeps what its neighbours agree on.
    ids = jnp.asarray((jnp.arange(HEIGHT)[:, None] // 8) * 8 + jnp.arange(WIDTH) // 8)
    ids = jnp.broadcast_to(ids, (BATCH, HEIGHT, WIDTH))
    masks = np.asarray(warp_masks(ids, matrix, -1))
    both = [
        np.asarray(warp_images((ids[..., None] == k).astype(jnp.float32), matrix)[..., 0])
        for k in range(48)
    ]
    winner, share = np.argmax(both, 0), np.max(both, 0)
    np.testing.assert_array_equal(masks[share > 0.51], winner[share > 0.51])
    outside = np.sum(both, 0) < 0.24
    assert (masks[outside] == -1).all()
    channels = warp_masks(jnp.stack([ids, ids + 1], -1), matrix, -1)
    np.testing.assert_array_equal(channels[..., 0], masks)


def test_points_follow_images(matrix):
    row, column = 20, 30
    dot = jnp.zeros((BATCH, HEIGHT, WIDTH, 1)).at[:, row, column].set(1.0)
    warped = np.asarray(warp_images(dot, matrix))[..., 0]
    point = geometry.warp_points(
        jnp.full((BATCH, 1, 2), jnp.array([column + 0.5, row + 0.5])), matrix
    )
    weight = warped / warped.sum((1, 2), keepdims=True)
    x = (weight * (np.arange(WIDTH) + 0.5)).sum((1, 2))
    y = (weight * (np.arange(HEIGHT) + 0.5)[:, None]).sum((1, 2))
    np.testing.assert_allclose(point[:, 0], np.stack([x, y], -1), atol=0.3)


def test_boxes_are_hulls(matrix):
    box = jnp.broadcast_to(jnp.array([10.0, 5.0, 40.0, 30.0]), (BATCH, 1, 4))
    corners = jnp.array([[10.0, 5.0], [40.0, 5.0], [40.0, 30.0], [10.0, 30.0]])
    corners = geometry.warp_points(jnp.broadcast_to(corners, (BATCH, 4, 2)), matrix)
    expected = jnp.concatenate([corners.min(1), corners.max(1)], -1)
    np.testing.assert_array_equal(geometry.warp_boxes(box, matrix)[:, 0], expected)
    np.testing.assert_array_equal(geometry.warp_boxes(box, matrix)[0], box[0])


def test_flips_and_clips_of_boxes():
    box = jnp.array([[[1.0, 2.0, 5.0, 9.0]]])
    assert geometry.flip_boxes(box, width=20)[0, 0].tolist() == [15, 2, 19, 9]
    assert geometry.flip_boxes(box, height=10)[0, 0].tolist() == [1, 1, 5, 8]
    outside = jnp.array([[[-5.0, 2.0, -1.0, 50.0]]])
    assert geometry.clip_boxes(outside, 10, 20)[0, 0].tolist() == [0, 2, 0, 10]


def torchvision_matrix(centre, degrees, scale, translation, shear):
    """Written out from the documented factors: T C R Shear Scale C^-1."""
    angle, x, y = np.radians([degrees, *shear])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shears = np.array([[1, 0], [-np.tan(y), 1]]) @ np.array([[1, -np.tan(x)], [0, 1]])
    out = np.eye(3)
    out[:2, :2] = scale * rotation @ shears
    out[:2, 2] = np.add(centre, translation) - out[:2, :2] @ centre
    return out


angles = st.floats(-170, 170)
factors = st.floats(0.5, 2)
lengths = st.floats(-20, 20)
shears = st.floats(-40, 40)
# One shape and dtype throughout, so that each operation compiles once.
affine = st.tuples(angles, factors, st.tuples(lengths, lengths), st.tuples(shears, shears))


def build(parameters):
    degrees, scale, translation, shear = parameters
    column = lambda value: jnp.full((1,), value, jnp.float32)  # noqa: E731
    return geometry.affine_matrix(
        (31.0, 17.0),
        degrees=column(degrees),
        scale=column(scale),
        translation=(column(translation[0]), column(translation[1])),
        shear=(column(shear[0]), column(shear[1])),
    )


@settings(max_examples=30, deadline=None)
@given(affine)
def test_matrix_is_the_product_of_its_factors(parameters):
    expected = torchvision_matrix((31.0, 17.0), *parameters)
    np.testing.assert_allclose(build(parameters)[0], expected, rtol=1e-4, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(affine, affine)
def test_composition_and_inverse(first, second):
    first, second = build(first), build(second)
    points = jnp.array([[[0.0, 0.0], [64.0, 0.0], [12.5, 40.0]]])
    one_by_one = geometry.warp_points(geometry.warp_points(points, first), second)
    at_once = geometry.warp_points(points, jnp.asarray(np.asarray(second) @ np.asarray(first)))
    np.testing.assert_allclose(one_by_one, at_once, rtol=1e-3, atol=2e-2)
    there_and_back = geometry.warp_points(
        geometry.warp_points(points, first), geometry.invert_affine(first)
    )
    np.testing.assert_allclose(there_and_back, points, atol=2e-2)
