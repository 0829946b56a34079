"""Boxes against torchvision and mmdetection (parity/detection_ops.npz), and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.detection_ops import PATH, WEIGHTS, cells, pairs

from jaxvision.ops import boxes

GOLDEN = np.load(PATH)
BOXES, OTHERS, CELLS, PRIORS = map(jnp.asarray, [*pairs(), *cells()])
RAW = jnp.asarray(GOLDEN["codings/raw"])
COUNT = st.integers(0, 2**31)


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (boxes.pairwise_iou, "box_iou"),
        (boxes.pairwise_giou, "generalized_box_iou"),
        (lambda a, b: boxes.diou(a[:, None], b), "distance_box_iou"),
    ],
)
def test_overlaps_equal_torchvision(ours, reference):
    found = jax.jit(ours)(BOXES, OTHERS)
    np.testing.assert_allclose(found, GOLDEN[f"overlaps/{reference}"], rtol=1e-5, atol=1e-6)


def test_overlaps_by_hand():
    a = jnp.asarray([[0.0, 0, 2, 2], [0, 0, 2, 2], [5, 5, 5, 5], [1, 1, 1, 3], [0, 0, 4, 4]])
    b = jnp.asarray([[1.0, 1, 3, 3], [4, 0, 6, 2], [5, 5, 5, 5], [1, 1, 1, 3], [1, 1, 2, 2]])
    np.testing.assert_allclose(boxes.iou(a, b), [1 / 7, 0, 0, 0, 1 / 16])
    # Around the first pair is a box of 9, of which 2 are empty; around the second one of 12.
    np.testing.assert_allclose(boxes.giou(a, b), [1 / 7 - 2 / 9, -4 / 12, 0, 0, 1 / 16], rtol=1e-6)
    # Centres √2, 4 and √0.5 apart; the enclosing boxes' diagonals are √18, √40 and √32.
    far = [1 / 7 - 2 / 18, -16 / 40, 0, 0, 1 / 16 - 0.5 / 32]
    np.testing.assert_allclose(boxes.diou(a, b), far, rtol=1e-5)
    np.testing.assert_allclose(boxes.pairwise_ioa(a[:1], b), [[1 / 4, 0, 0, 0, 1 / 4]])
    np.testing.assert_array_equal(boxes.area(jnp.asarray([[0.0, 0, 2, 3], [2, 2, 0, 0]])), [6, 0])


@pytest.mark.parametrize("overlap", [boxes.iou, boxes.giou, boxes.diou])
def test_gradients_of_boxes_without_area_are_finite(overlap):
    nothing = jnp.zeros((3, 4))
    other = jnp.asarray([[0.0, 0, 0, 0], [1, 1, 2, 2], [-1, -1, 1, 1]])
    gradients = jax.grad(lambda a, b: overlap(a, b).sum(), (0, 1))(nothing, other)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_deltas_equal_torchvision(kind):
    encoded = boxes.encode_deltas(BOXES, OTHERS, WEIGHTS[kind])
    np.testing.assert_allclose(encoded, GOLDEN[f"codings/encode_{kind}"], rtol=1e-4, atol=1e-5)
    decoded = boxes.decode_deltas(RAW, OTHERS, WEIGHTS[kind])
    assert (RAW[:, 2:] > boxes.MAX_LOG_SCALE).any()  # so that the bound is seen
    np.testing.assert_allclose(decoded, GOLDEN[f"codings/decode_{kind}"], rtol=1e-5, atol=1e-2)


def test_distances_equal_torchvision():
    points = OTHERS[:, :2] + 8
    encoded = boxes.encode_distances(BOXES, points, 16.0)
    np.testing.assert_allclose(encoded, GOLDEN["codings/encode_distances"], rtol=1e-5, atol=1e-5)
    decoded = boxes.decode_distances(RAW, points, jnp.full(len(points), 16.0))
    np.testing.assert_allclose(decoded, GOLDEN["codings/decode_distances"], rtol=1e-5, atol=1e-4)


def test_yolo_equals_mmdetection():
    encoded = boxes.encode_yolo(BOXES, CELLS, PRIORS, 16)
    np.testing.assert_allclose(encoded, GOLDEN["codings/encode_yolo"], rtol=1e-5, atol=1e-5)
    decoded = boxes.decode_yolo(RAW, CELLS, PRIORS, 16)
    np.testing.assert_allclose(decoded, GOLDEN["codings/decode_yolo"], rtol=1e-5, atol=1e-2)


def test_yolo_v1_by_hand():
    box = jnp.asarray([100.0, 50, 200, 250])  # centre (150, 150) of an image of 400 x 200
    code = boxes.encode_yolo_v1(box, jnp.asarray([2, 3]), (4, 7), (200, 400))
    np.testing.assert_allclose(code, [150 / 400 * 7 - 2, 0, 0.5, 1], rtol=1e-6, atol=1e-6)
    back = boxes.decode_yolo_v1(code, jnp.asarray([2, 3]), (4, 7), (200, 400))
    np.testing.assert_allclose(back, box, rtol=1e-6)


def logit(encoded):
    return jnp.concatenate([jnp.log(encoded[:, :2] / (1 - encoded[:, :2])), encoded[:, 2:]], 1)


PAIRS = {
    "deltas": lambda b, a: boxes.decode_deltas(
        boxes.encode_deltas(b, a, WEIGHTS["ssd"]), a, WEIGHTS["ssd"]
    ),
    "distances": lambda b, a: boxes.decode_distances(
        boxes.encode_distances(b, a[:, :2], 8.0), a[:, :2], 8.0
    ),
    "centers": lambda b, a: boxes.from_centers(boxes.to_centers(b)),
    "yolo": lambda b, a: boxes.decode_yolo(
        logit(boxes.encode_yolo(b, cell_of(b), a[:, 2:], 16)), cell_of(b), a[:, 2:], 16
    ),
    "yolo_v1": lambda b, a: boxes.decode_yolo_v1(
        boxes.encode_yolo_v1(b, cell_of(b), (7, 7), (112, 112)), cell_of(b), (7, 7), (112, 112)
    ),
}


def cell_of(box):
    return jnp.floor(boxes.to_centers(box)[:, :2] / 16)


@pytest.mark.parametrize("coding", PAIRS)
@settings(max_examples=20, deadline=None)
@given(seed=COUNT)
def test_what_is_encoded_is_decoded(coding, seed):
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 60, (2, 8, 2)), rng.uniform(1, 40, (2, 8, 2))
    box, anchor = np.float32(np.concatenate([corner, corner + size], -1))
    np.testing.assert_allclose(ROUND[coding](box, anchor), box, atol=1e-2)


ROUND = {name: jax.jit(function) for name, function in PAIRS.items()}


@pytest.mark.parametrize(
    "encode",
    [
        boxes.encode_deltas,
        lambda b, a: boxes.encode_yolo(b, a[:, :2], jnp.ones((4, 2)), 8),
        lambda b, a: boxes.encode_yolo_v1(b, a[:, :2], (7, 7), (112, 112)),
    ],
)
def test_padding_is_encoded_by_finite_numbers(encode):
    box = jnp.asarray([[0.0, 0, 0, 0], [0, 0, 4, 4], [0, 0, 0, 0], [3, 3, 3, 9]])
    anchor = jnp.asarray([[0.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 4, 4], [0, 0, 4, 4]])
    value, gradient = jax.value_and_grad(lambda b: encode(b, anchor).sum())(box)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_clip_by_an_image_and_by_each_images_size():
    box = jnp.asarray([[-3.0, -2, 50, 9], [40, 5, 90, 70]])
    np.testing.assert_array_equal(boxes.clip(box, 8, 32), [[0, 0, 32, 8], [32, 5, 32, 8]])
    found = boxes.clip(box, jnp.asarray([8, 60]), jnp.asarray([32, 100]))
    np.testing.assert_array_equal(found, [[0, 0, 32, 8], [40, 5, 90, 60]])


def test_one_set_of_anchors_serves_a_batch():
    found = boxes.encode_deltas(jnp.stack([BOXES, OTHERS]), OTHERS)
    np.testing.assert_allclose(found[0], GOLDEN["codings/encode_rcnn"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], 0, atol=1e-6)
