"""The set loss; tests/models/test_set_prediction.py compares it with transformers' on networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from jaxvision.losses.set_prediction import match_sets, set_losses

RNG = np.random.default_rng(0)
QUERIES, SLOTS, CLASSES = 4, 6, 3


def sets(rows):
    """Predictions, and boxes of which any number counts."""
    boxes = RNG.uniform(0.2, 0.4, (rows, QUERIES + SLOTS, 4)).astype(np.float32)
    boxes[..., :2] += 0.3 * RNG.uniform(size=boxes[..., :2].shape)
    return {
        "logits": RNG.normal(size=(rows, QUERIES, CLASSES + 1)).astype(np.float32),
        "boxes": boxes[:, :QUERIES],
        "labels": RNG.integers(CLASSES, size=(rows, SLOTS)),
        "truth": boxes[:, QUERIES:],
        "valid": np.ones((rows, SLOTS), bool),
    }


def cost_of(given):
    """The cost of each match, from its definition."""

    def span(middle, size, other, length):
        """What two intervals share, and the length from the first end to the last."""
        low, high = (middle - size / 2, other - length / 2), (middle + size / 2, other + length / 2)
        return max(min(high) - max(low), 0), max(high) - min(low)

    found = np.zeros((QUERIES, SLOTS))
    probabilities = np.exp(given["logits"]) / np.exp(given["logits"]).sum(1, keepdims=True)
    for query, (x, y, w, h) in enumerate(given["boxes"].astype(np.float64)):
        for slot, (u, v, a, b) in enumerate(given["truth"].astype(np.float64)):
            (across, wide), (down, high) = span(x, w, u, a), span(y, h, v, b)
            union = w * h + a * b - across * down
            giou = across * down / union - (wide * high - union) / (wide * high)
            l1 = abs(x - u) + abs(y - v) + abs(w - a) + abs(h - b)
            found[query, slot] = 5 * l1 - 2 * giou - probabilities[query, given["labels"][slot]]
    return found


@pytest.fixture(scope="module")
def match():
    return jax.jit(match_sets)


@pytest.mark.parametrize("count", [0, 1, QUERIES, SLOTS])
def test_matches_cost_least(match, count):
    """Also where there are more boxes than predictions."""
    given = {key: value[0] for key, value in sets(1).items()}
    given["valid"] = np.arange(SLOTS) < count
    cost = cost_of(given)
    rows, columns = linear_sum_assignment(cost[:, :count])
    found = np.asarray(match(*map(jnp.asarray, given.values())))
    expected = np.full(SLOTS, -1)
    expected[columns] = rows
    np.testing.assert_array_equal(found, expected)


@functools.partial(jax.jit, static_argnames="rows")
def differentiated(given, counted, rows):
    """Totals and weights by name, and the gradient of the sum of the means."""

    def loss(logits, boxes):
        rest = (given[key][:rows] for key in ("labels", "truth", "valid"))
        means = set_losses(logits, boxes, *rest, counted[:rows])
        return sum(mean.value for mean in means.values()), means

    outputs = given["logits"][:rows], given["boxes"][:rows]
    gradient, means = jax.grad(loss, (0, 1), has_aux=True)(*outputs)
    return means, gradient


def test_what_does_not_count_changes_nothing():
    given = jax.tree.map(jnp.asarray, sets(3))
    given["valid"] = jnp.arange(SLOTS) < jnp.array([2, 1, 5])[:, None]
    means, gradient = differentiated(given, jnp.ones(3, bool), 2)
    others, other_gradient = differentiated(given, jnp.array([True, True, False]), 3)
    for name, mean in means.items():
        np.testing.assert_allclose(others[name], mean, 1e-5)
    for ours, other in zip(gradient, other_gradient):
        np.testing.assert_allclose(other[:2], ours, 1e-5, 1e-6)
        assert not other[2].any()


def test_micro_batches_add_up():
    given = jax.tree.map(jnp.asarray, sets(2))
    given["valid"] = jnp.arange(SLOTS) < jnp.array([SLOTS, 1])[:, None]
    whole, _ = differentiated(given, jnp.ones(2, bool), 2)
    parts = [differentiated(given, jnp.arange(2) == row, 2)[0] for row in (0, 1)]
    for name, mean in whole.items():
        np.testing.assert_allclose(parts[0][name].total + parts[1][name].total, mean.total, 1e-5)
        np.testing.assert_allclose(parts[0][name].weight + parts[1][name].weight, mean.weight, 1e-6)
    # Four of the six boxes find a prediction; of the other image three predictions are nothing.
    assert float(whole["ce"].weight) == pytest.approx(4 + 1 + 3 * 0.1)
    assert float(whole["bbox"].weight) == SLOTS + 1


def test_no_objects():
    given = jax.tree.map(jnp.asarray, sets(2))
    given["valid"] = jnp.zeros((2, SLOTS), bool)
    given["truth"] = jnp.zeros_like(given["truth"])
    means, gradient = differentiated(given, jnp.ones(2, bool), 2)
    expected = -jax.nn.log_softmax(given["logits"])[..., -1].mean()
    np.testing.assert_allclose(means["ce"].value, expected, 1e-5)
    assert float(means["bbox"].value) == float(means["giou"].value) == 0
    assert all(np.isfinite(part).all() for part in gradient)
    assert gradient[0].any()
