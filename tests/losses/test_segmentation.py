"""Losses of label maps against segmentation_models_pytorch and MONAI (parity/segmentation.npz).

The former's mean is over all classes, with zero for absent ones; ours is over those present.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.segmentation import CLASSES, VOID, maps

from jaxvision import losses

GOLDEN = np.load(Path(__file__).parents[1] / "parity" / "segmentation.npz")
MAPS = maps()
LOSSES = {
    "dice": losses.dice,
    "soft_iou": losses.soft_iou,
    "tversky": lambda *a: losses.tversky(*a, alpha=0.3, beta=0.7),
    "lovasz": losses.lovasz,
}
CASES = [key for key in GOLDEN.files if key.split("/")[1] in LOSSES]


def arguments(name):
    scores, truth = MAPS[name]
    mask = truth != VOID
    return jnp.asarray(scores), jnp.asarray(np.where(mask, truth, 0)), jnp.asarray(mask)


def share_present(name):
    truth = MAPS[name][1]
    return len(np.unique(truth[truth != VOID])) / CLASSES


@pytest.mark.parametrize("key", CASES)
def test_regions_equal_the_reference(key):
    name, loss = key.split("/")
    scores, targets, mask = arguments(name)
    value, gradient = jax.value_and_grad(LOSSES[loss])(scores, targets, mask)
    # Lovász's reference takes the mean over the present classes too.
    factor = 1.0 if loss == "lovasz" else share_present(name)
    np.testing.assert_allclose(value * factor, GOLDEN[key], rtol=1e-5, atol=1e-6)
    expected = GOLDEN[f"{key}_gradient"]
    size = np.abs(expected).max()
    np.testing.assert_allclose(gradient * factor, expected, rtol=1e-4, atol=1e-5 * size + 1e-9)


@pytest.mark.parametrize("name", ["random", "absent", "certain"])
def test_focal_equals_monai(name):
    scores, targets, _ = arguments(name)
    value, weight = losses.focal(scores, targets)
    np.testing.assert_allclose(value, GOLDEN[f"{name}/focal"], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(weight, 1)
    assert np.isfinite(jax.grad(lambda s: losses.focal(s, targets)[0].sum())(scores)).all()


def test_focal_without_focus_is_weighted_cross_entropy():
    scores, targets, _ = arguments("random")
    weights = [1.0, 2.0, 0.5, 3.0, 1.0]
    ours = losses.focal(scores, targets, gamma=0.0, class_weights=weights)
    expected = losses.cross_entropy(scores, targets, class_weights=weights)
    for a, b in zip(ours, expected):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["random", "absent"])
def test_squared_dice_is_that_of_vnet(name):
    scores, targets, mask = arguments(name)
    each = GOLDEN[f"{name}/squared_dice"]
    present = np.unique(targets)
    value = losses.dice(scores, targets, mask, squared=True)
    np.testing.assert_allclose(value, each[present].mean(), rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_to_learn_from_gives_zero(loss):
    scores, targets, mask = arguments("all_void")
    value, gradient = jax.value_and_grad(LOSSES[loss])(scores, targets, mask)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(sorted(LOSSES)))
def test_what_does_not_count_is_not_looked_at(seed, loss):
    rng = np.random.default_rng(seed)
    scores, targets, _ = arguments("random")
    mask = jnp.asarray(rng.random(targets.shape) < 0.6)
    noise = jnp.asarray(rng.normal(0, 3, scores.shape), jnp.float32)
    other = jnp.where(mask[..., None], scores, noise)
    np.testing.assert_allclose(
        LOSSES[loss](scores, targets, mask), LOSSES[loss](other, targets, mask), rtol=1e-5
    )


def test_tversky_of_halves_is_dice_and_of_ones_iou():
    scores, targets, mask = arguments("random")
    both = (losses.tversky(scores, targets, mask), losses.dice(scores, targets, mask))
    np.testing.assert_allclose(*both, rtol=1e-6)
    ones = losses.tversky(scores, targets, mask, alpha=1.0, beta=1.0)
    np.testing.assert_allclose(ones, losses.soft_iou(scores, targets, mask), rtol=1e-6)


def test_hard_examples_are_the_worst_and_the_unsure():
    values = jnp.asarray([0.1, 0.5, 2.0, 0.01, 5.0, 9.0])
    mask = jnp.asarray([True, True, True, True, True, False])
    unsure = losses.hard_examples(values, mask, share=0.2, threshold=0.7)  # -ln 0.7 = 0.357
    np.testing.assert_array_equal(unsure, [False, True, True, False, True, False])
    least = losses.hard_examples(values, mask, share=0.8, threshold=0.001)
    np.testing.assert_array_equal(least, [True, True, True, False, True, False])
    none = losses.hard_examples(values, jnp.zeros(6, bool), share=0.5)
    np.testing.assert_array_equal(none, False)
