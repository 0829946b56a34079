"""Metrics of label maps against torchmetrics (tests/parity/segmentation.npz) and SciPy."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.segmentation import CLASSES, maps
from scipy import ndimage

from jaxvision import metrics
from jaxvision.metrics import BoundaryF1, ConfusionMatrix
from jaxvision.metrics.boundary import boundaries, near

GOLDEN = np.load(Path(__file__).parents[1] / "parity" / "segmentation.npz")
MAPS = maps()


def matrix(name, **options):
    scores, truth = MAPS[name]
    return ConfusionMatrix.of(
        jnp.asarray(scores.argmax(-1)), jnp.asarray(truth), CLASSES, **options
    )


@pytest.mark.parametrize("name", MAPS)
def test_metrics_equal_torchmetrics(name):
    found = matrix(name)
    np.testing.assert_array_equal(found.counts, GOLDEN[f"{name}/confusion"])
    result = found.compute("")
    if name == "all_void":
        assert np.isnan([v for k, v in result.items()]).all()
        return
    occurring = np.asarray(found.counts).sum(1) > 0
    seen = occurring | (np.asarray(found.counts).sum(0) > 0)
    # Where a class neither occurs nor is predicted there is no IoU; torchmetrics writes 0.
    np.testing.assert_allclose(found.iou()[seen], GOLDEN[f"{name}/iou"][seen], rtol=1e-6)
    assert np.isnan(found.iou()[~seen]).all()
    assert result["miou"] == pytest.approx(float(GOLDEN[f"{name}/miou"]))
    assert result["fwiou"] == pytest.approx(float(GOLDEN[f"{name}/fwiou"]))
    assert result["pixel_accuracy"] == pytest.approx(float(GOLDEN[f"{name}/pixel_accuracy"]))
    recall = GOLDEN[f"{name}/recall"][occurring].mean()
    assert result["mean_class_accuracy"] == pytest.approx(float(recall))


def test_what_is_predicted_on_void_is_left_out_or_a_false_positive():
    true = jnp.array([0, 0, 1, 255, 255, -1])
    guess = jnp.array([0, 1, 1, 1, 0, 1])
    ignored = ConfusionMatrix.of(guess, true, 2)
    counted = ConfusionMatrix.of(guess, true, 2, void_counts=True)
    np.testing.assert_allclose(ignored.iou(), [1 / 2, 1 / 2])
    np.testing.assert_allclose(counted.iou(), [1 / 3, 1 / 3])
    np.testing.assert_array_equal(counted.on_void, [1, 1])
    both = metrics.add(counted, counted)
    np.testing.assert_allclose(both.iou(), counted.iou())


def test_more_classes_than_255():
    true = jnp.array([255, 255, 299, 65535, 65535, -1])
    guess = jnp.array([255, 43, 299, 255, 0, 1])
    found = ConfusionMatrix.of(guess, true, 300)
    expected = np.zeros((300, 300), int)
    expected[255, 255] = expected[255, 43] = expected[299, 299] = 1
    np.testing.assert_array_equal(found.counts, expected)
    assert np.flatnonzero(np.asarray(found.on_void)).tolist() == [0, 255]
    assert found.compute("")["pixel_accuracy"] == pytest.approx(2 / 3)


def test_a_network_may_predict_void():
    true, guess = jnp.array([0, 0, 1]), jnp.array([0, 2, 2])
    found = ConfusionMatrix.of(guess, true, 2)
    np.testing.assert_allclose(found.iou(), [1 / 2, 0])
    assert found.compute("")["pixel_accuracy"] == pytest.approx(1 / 3)


def test_espnets_published_numbers(shared_data):
    confusion = np.load(shared_data / "weights" / "espnet_camvid" / "reference_test.npz")
    counts = next(v for v in (confusion[k] for k in confusion.files) if v.shape == (12, 12))
    parts = {"counts": counts[:11, :11], "on_void": counts[11, :11], "to_void": counts[:11, 11]}
    published = ConfusionMatrix(**parts, void_counts=True).compute("")
    assert round(100 * published["miou"], 2) == 55.65
    assert round(100 * published["mean_class_accuracy"], 2) == 68.30
    ignoring = ConfusionMatrix(**parts).compute("")
    assert round(100 * ignoring["miou"], 3) == 57.175
    assert round(100 * ignoring["pixel_accuracy"], 3) == 85.798


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1.0, 1.5, 2.0, 3.7, 5.0]))
def test_near_is_within_the_euclidean_distance(seed, radius):
    marked = np.random.default_rng(seed).random((2, 13, 9)) < 0.05
    expected = [
        ndimage.distance_transform_edt(~m) <= radius if m.any() else np.zeros_like(m)
        for m in marked
    ]
    np.testing.assert_array_equal(near(jnp.asarray(marked), radius), expected)


def test_boundaries_are_inside_the_region():
    inside = np.zeros((1, 6, 6), bool)
    inside[0, 1:5, 1:5] = True
    expected = inside.copy()
    expected[0, 2:4, 2:4] = False
    np.testing.assert_array_equal(boundaries(jnp.asarray(inside)), expected)
    np.testing.assert_array_equal(boundaries(jnp.ones((1, 3, 3), bool)), False)


def test_boundary_f1_by_hand():
    true = np.zeros((1, 40, 40), int)
    true[0, 10:30, 10:30] = 1
    moved = np.roll(true, 1, axis=2)
    halves = np.broadcast_to(np.arange(40) >= 20, (1, 40, 40)).astype(int)

    def score(guess, truth=true):
        found = BoundaryF1.of(jnp.asarray(guess), jnp.asarray(truth), 2, tolerance=0.02)
        return found.compute("f")["f"]  # 0.02 of the diagonal: 1.13 pixels

    assert score(true) == pytest.approx(1)
    assert score(moved) == pytest.approx(1)
    assert score(np.roll(halves, 8, axis=2)[:, :, 8:32], halves[:, :, 8:32]) == 0
    assert np.isnan(score(true, np.full_like(true, 255)))
