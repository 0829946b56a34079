"""Matching against torchvision, effdet, mmdetection (parity/detection_ops.npz) and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.detection_ops import PATH, targets
from scipy.optimize import linear_sum_assignment

from jaxvision.ops import matching
from jaxvision.ops.boxes import pairwise_iou

GOLDEN = np.load(PATH)
OVERLAPS = GOLDEN["matching/overlaps"]
BOXES, ANCHORS, LEVELS = targets()
# A row of padding amid the boxes, which overlaps everything, and one at the end.
PADDED = np.concatenate([OVERLAPS[:2], np.ones_like(OVERLAPS[:1]), OVERLAPS[2:], OVERLAPS[:1]])
VALID = np.array([True, True, False, True, True, True, True, False])
NAMES = np.array([0, 1, -9, 2, 3, 4, 5, -9, -2, -1])  # of the padded rows among the others


MATCH = jax.jit(matching.match_boxes, static_argnums=(2, 3, 4))
CLAIM = jax.jit(matching.claim_best_anchors, static_argnums=3)
ATSS = jax.jit(matching.atss)
ASSIGN_ONE = jax.jit(matching.hungarian)


@pytest.mark.parametrize(
    ("name", "options"), [("low_quality", (0.7, 0.3, True)), ("strict", (0.5, 0.4))]
)
def test_matches_equal_torchvision(name, options):
    expected = GOLDEN[f"matching/{name}"]
    assert {-1, -2} < set(expected)  # each outcome is there
    np.testing.assert_array_equal(MATCH(OVERLAPS, np.ones(len(OVERLAPS), bool), *options), expected)
    np.testing.assert_array_equal(NAMES[MATCH(PADDED, VALID, *options)], expected)


@pytest.mark.parametrize(("name", "winner"), [("ssd", "last"), ("efficientdet", "first")])
def test_claims_equal_the_references(name, winner):
    boxes = jnp.concatenate([jnp.asarray(BOXES), jnp.asarray(BOXES[:1]) + 0.5])
    overlaps = pairwise_iou(boxes, jnp.asarray(ANCHORS))
    valid = jnp.ones(len(boxes), bool)
    matches = MATCH(overlaps, valid, 0.5, 0.5)
    found = CLAIM(matches, overlaps, valid, winner)
    np.testing.assert_array_equal(found, GOLDEN[f"matching/{name}"])


def test_matches_by_hand():
    overlaps = jnp.asarray(
        [
            [0.9, 0.6, 0.2, 0.2, 0.0],
            [0.9, 0.3, 0.1, 0.2, 0.0],
            [0.0, 0.0, 0.45, 0.45, 0.0],
            [1.0, 1.0, 1.0, 1.0, 1.0],
        ]
    )
    valid = jnp.asarray([True, True, True, False])
    strict = MATCH(overlaps, valid, 0.7, 0.4)
    np.testing.assert_array_equal(strict, [0, -2, -2, -2, -1])
    # Both anchors that overlap the third box most are its own now.
    lenient = MATCH(overlaps, valid, 0.7, 0.4, True)
    np.testing.assert_array_equal(lenient, [0, -2, 2, 2, -1])
    # The first two boxes both claim the first anchor; the third one the first of two alike.
    for winner, first in (("last", 1), ("first", 0)):
        claimed = CLAIM(strict, overlaps, valid, winner)
        np.testing.assert_array_equal(claimed, [first, -2, 2, -2, -1])


def test_without_boxes_all_is_background():
    nothing = jnp.zeros(len(OVERLAPS), bool)
    for low_quality in (False, True):
        found = MATCH(jnp.asarray(OVERLAPS), nothing, 0.5, 0.0, low_quality)
        np.testing.assert_array_equal(found, -1)
    claimed = CLAIM(found, jnp.asarray(OVERLAPS), nothing, "last")
    np.testing.assert_array_equal(claimed, -1)
    boxes, levels = jnp.asarray(BOXES), jnp.split(jnp.asarray(ANCHORS), [LEVELS[0]])
    np.testing.assert_array_equal(ATSS(levels, boxes, nothing), -1)


def test_atss_equals_mmdetection():
    expected = GOLDEN["matching/atss"]
    assert len(np.unique(expected)) > 4
    levels = jnp.split(jnp.asarray(ANCHORS), [LEVELS[0]])
    boxes = np.concatenate([BOXES[:2], BOXES[:1] + 1, BOXES[2:], np.zeros((1, 4), np.float32)])
    found = ATSS(levels, jnp.asarray(boxes), jnp.asarray(VALID))
    np.testing.assert_array_equal(NAMES[found], expected)


def cost_of(cost, rows):
    taken = rows >= 0
    assert len(np.unique(rows[taken])) == taken.sum()  # a row of its own for each
    return cost[rows[taken], np.flatnonzero(taken)].astype(float).sum()


ASSIGN = jax.jit(jax.vmap(matching.hungarian))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(["normal", "whole", "alike", "offset"]))
def test_assignments_cost_what_scipys_do(seed, kind):
    rng = np.random.default_rng(seed)
    shape = (3, 12, 9)
    costs = {
        "normal": lambda: rng.normal(0, 5, shape),
        "whole": lambda: rng.integers(0, 4, shape),  # of which many are equal
        "alike": lambda: rng.normal(0, 1, (3, 12, 1)) + rng.normal(0, 0.01, shape),
        "offset": lambda: 100 + rng.random(shape),
    }[kind]().astype(np.float32)
    valid = rng.random((3, 9)) < rng.choice([0, 0.5, 1])
    for cost, counts, rows in zip(costs, valid, np.asarray(ASSIGN(costs, valid))):
        np.testing.assert_array_equal(rows >= 0, counts)
        best = linear_sum_assignment(cost[:, counts].astype(float))
        expected = cost[:, counts].astype(float)[best].sum()
        np.testing.assert_allclose(cost_of(cost, rows), expected, rtol=1e-5, atol=1e-5)
        if kind == "whole":
            assert cost_of(cost, rows) == expected


def test_a_square_assignment_is_a_permutation():
    cost = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    rows = np.asarray(ASSIGN_ONE(cost, np.ones(40, bool)))
    np.testing.assert_array_equal(np.sort(rows), np.arange(40))
    expected = cost.astype(float)[linear_sum_assignment(cost)].sum()
    np.testing.assert_allclose(cost_of(cost, rows), expected, rtol=1e-6)


def test_assignments_by_hand():
    # The second box must leave its cheapest row to the first one, which has no other.
    cost = jnp.asarray([[1.0, 0.0], [jnp.inf, 5.0], [jnp.inf, 7.0]])
    np.testing.assert_array_equal(ASSIGN_ONE(cost, jnp.ones(2, bool)), [0, 1])
    np.testing.assert_array_equal(ASSIGN_ONE(cost, jnp.asarray([False, True])), [-1, 0])
    np.testing.assert_array_equal(ASSIGN_ONE(cost, jnp.zeros(2, bool)), [-1, -1])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_infinite_costs_are_never_paid(seed):
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 9, (3, 12, 9)).astype(np.float32)
    forbidden = rng.random(costs.shape) < 0.7
    costs[forbidden] = rng.choice([np.inf, np.nan])
    for cost, rows in zip(costs, np.asarray(ASSIGN(costs, np.ones((3, 9), bool)))):
        assert np.isfinite(cost_of(cost, rows))
        cost = np.nan_to_num(cost, nan=np.inf, posinf=np.inf)
        try:
            expected = cost[linear_sum_assignment(cost)].sum()
        except ValueError:  # there is no assignment of all columns
            assert (rows < 0).any()
        else:
            assert cost_of(cost, rows) == expected


def test_more_columns_than_rows_are_an_error():
    with pytest.raises(ValueError, match="3 columns cannot have a row each of 2"):
        matching.hungarian(jnp.zeros((2, 3)), jnp.ones(3, bool))


SAMPLE = jax.jit(matching.balanced_sample, static_argnums=(2, 3))


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [(30, 60, (8, 24)), (3, 60, (3, 29)), (0, 60, (0, 32)), (30, 10, (8, 10)), (0, 0, (0, 0))],
)
def test_samples_have_their_numbers(positives, negatives, expected):
    labels = np.full(100, -1, np.int32)
    labels[:positives] = 1 + np.arange(positives) % 4
    labels[40 : 40 + negatives] = 0
    drawn = SAMPLE(labels, jax.random.key(0), 32, 0.25)
    assert tuple(int(mask.sum()) for mask in drawn) == expected
    assert not (np.asarray(drawn[0]) & (labels < 1)).any()
    assert not (np.asarray(drawn[1]) & (labels != 0)).any()


def test_samples_are_drawn_evenly_and_by_the_key():
    labels = jnp.repeat(jnp.asarray([1, 0]), 50)
    draw = jax.jit(jax.vmap(lambda key: matching.balanced_sample(labels, key, 20, 0.5)))
    keys = jax.random.split(jax.random.key(1), 2000)
    positive, negative = map(np.asarray, draw(keys))
    # 10 of 50 each: a share of 0.2, with a standard deviation of 0.009 over 2000 draws.
    np.testing.assert_allclose(positive[:, :50].mean(0), 0.2, atol=0.04)
    np.testing.assert_allclose(negative[:, 50:].mean(0), 0.2, atol=0.04)
    np.testing.assert_array_equal(draw(keys)[0], positive)
    assert (positive[0] != positive[1]).any()
