"""Detectors' losses against torchvision, torch and mmdetection (parity/detection_ops.npz)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.detection_ops import PATH, numbers, pairs

from jaxvision import losses

GOLDEN = np.load(PATH)
GIVEN = numbers()
DIFFERENCES = GIVEN["predictions"], GIVEN["targets"]
LOGITS = GIVEN["logits"], GIVEN["there"]
CASES = {
    "smooth_l1/0.11": (lambda a, b: losses.smooth_l1(a, b, 1 / 9), DIFFERENCES),
    "smooth_l1/1.00": (losses.smooth_l1, DIFFERENCES),
    "balanced_l1": (losses.balanced_l1, DIFFERENCES),
    "focal": (losses.sigmoid_focal, LOGITS),
    "focal_unweighted": (lambda a, b: losses.sigmoid_focal(a, b, alpha=None, gamma=1.5), LOGITS),
    "giou": (losses.giou_loss, pairs()),
    "diou": (losses.diou_loss, pairs()),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_reference(name):
    loss, arguments = CASES[name]
    value = jax.jit(loss)(*arguments)
    np.testing.assert_allclose(value, GOLDEN[f"losses/{name}/value"], rtol=1e-5, atol=1e-6)
    gradient = jax.jit(jax.grad(lambda *a: loss(*a).sum()))(*arguments)
    expected = GOLDEN[f"losses/{name}/gradient"]
    size = np.abs(expected).max()
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * size)


def test_by_hand():
    np.testing.assert_allclose(
        losses.smooth_l1(jnp.asarray([0.0, 0.5, 1.0, -3.0]), jnp.zeros(4)), [0, 0.125, 0.5, 2.5]
    )
    np.testing.assert_allclose(losses.smooth_l1(jnp.asarray([-0.5]), jnp.zeros(1), 0.0), [0.5])
    # Where nothing is known: cross-entropy ln 2, a quarter of it for being half right, and alpha.
    half = losses.sigmoid_focal(jnp.zeros(2), jnp.asarray([1.0, 0.0]))
    np.testing.assert_allclose(half, [0.25 * 0.25 * np.log(2), 0.75 * 0.25 * np.log(2)], rtol=1e-6)
    # Boxes of 4 that share 1, of a box around them of 9; centres √2 apart, its diagonal √18.
    boxes, others = jnp.asarray([[0.0, 0, 2, 2]]), jnp.asarray([[1.0, 1, 3, 3]])
    np.testing.assert_allclose(losses.giou_loss(boxes, others), [1 - 1 / 7 + 2 / 9], rtol=1e-6)
    np.testing.assert_allclose(losses.diou_loss(boxes, others), [1 - 1 / 7 + 2 / 18], rtol=1e-6)


def test_balanced_l1_is_steeper_where_it_is_small_and_has_no_step():
    slope = jax.jit(jax.vmap(jax.grad(lambda x: losses.balanced_l1(x, jnp.zeros(())))))
    plain = jax.jit(jax.vmap(jax.grad(lambda x: losses.smooth_l1(x, jnp.zeros(())))))
    small = jnp.asarray([0.05, 0.2, 0.5])
    assert (slope(small) > plain(small)).all()
    around = jnp.asarray([1 - 1e-4, 1 + 1e-4])
    np.testing.assert_allclose(slope(around), 1.5, rtol=1e-3)
    np.testing.assert_allclose(*losses.balanced_l1(around, jnp.zeros(2)), rtol=1e-3)


@pytest.mark.parametrize("loss", [losses.giou_loss, losses.diou_loss])
def test_boxes_without_area_have_finite_gradients(loss):
    boxes = np.repeat(np.float32([[0, 0, 0, 0], [3, 3, 3, 5], [2, 2, 1, 1]]), 3, 0)
    targets = np.tile(np.float32([[0, 0, 0, 0], [1, 1, 2, 2], [3, 3, 3, 5]]), (3, 1))
    both = jax.jit(jax.value_and_grad(lambda a, b: loss(a, b).sum(), (0, 1)))
    value, gradients = both(boxes, targets)
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_certainty_has_finite_focal_gradients(gamma):
    logits, there = jnp.asarray([-200.0, 200, -200, 200]), jnp.asarray([0.0, 1, 1, 0])
    loss = lambda x: losses.sigmoid_focal(x, there, gamma=gamma).sum()  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
    np.testing.assert_allclose(value, 200 * 0.25 + 200 * 0.75, rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_hard_negatives_are_the_worst_of_each_image():
    chosen = np.asarray(
        losses.hard_negative_mining(jnp.asarray(GIVEN["losses"]), jnp.asarray(GIVEN["positive"]))
    )
    for values, positive, mask in zip(GIVEN["losses"], GIVEN["positive"], chosen):
        order = [i for i in np.argsort(-values) if not positive[i]]
        np.testing.assert_array_equal(np.flatnonzero(mask), np.sort(order[: 3 * positive.sum()]))
    assert chosen[0].any()
    assert not chosen[1].any()  # an image without objects has no negatives, as in torchvision


def test_there_may_be_fewer_negatives_than_wanted():
    positive = jnp.asarray([[True, True, False, False]])
    found = losses.hard_negative_mining(jnp.asarray([[9.0, 8, 7, 6]]), positive)
    np.testing.assert_array_equal(found, ~positive)
