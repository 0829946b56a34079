"""Suppression against torchvision and effdet (parity/detection_ops.npz), and against the rule.

`exact` holds overlaps of exactly 3/10: torchvision's C++ compares them in double precision.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.detection_ops import PATH, THRESHOLDS, candidates

from jaxvision.ops import suppression
from jaxvision.ops.suppression import batched_nms, nms, soft_nms

GOLDEN = np.load(PATH)
CASES = candidates()


def greedy(boxes, scores, threshold, classes, valid):
    """The rule in float32, one pair after another."""
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        alike = [j for j in kept if classes[j] == classes[i]]
        if valid[i] and not any(overlap(boxes[i], boxes[j]) > threshold for j in alike):
            kept.append(i)
    return kept


def overlap(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), np.float32(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]), np.float32(0))
    shared = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return float(shared / union) if union > 0 else 0.0


def rows(found):
    indices, kept = map(np.asarray, found)
    assert not kept[kept.sum() :].any()  # those that are boxes come first
    np.testing.assert_array_equal(indices[~kept], 0)
    return indices[kept]


@pytest.fixture(params=["cpu", "default"])
def form(request, monkeypatch):
    """Every form of the loop runs on this machine."""
    chosen = {"cpu": suppression._one_by_one, "default": suppression._all_at_once}[request.param]
    monkeypatch.setattr(suppression, "_one_by_one", chosen)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("name", CASES)
def test_equal_to_torchvision(form, name, threshold):
    boxes, scores, _ = CASES[name]
    expected = GOLDEN[f"nms/{name}/{threshold}"]
    run = jax.jit(lambda boxes, scores: nms(boxes, scores, threshold, len(scores)))
    np.testing.assert_array_equal(rows(run(boxes, scores)), expected)


@pytest.mark.parametrize("name", ["distinct", "exact"])
def test_each_class_by_itself(form, name):
    boxes, scores, classes = CASES[name]
    run = jax.jit(lambda *arrays: batched_nms(*arrays, 0.5, 100))
    np.testing.assert_array_equal(
        rows(run(boxes, scores, classes)), GOLDEN[f"batched_nms/{name}"][:100]
    )


def test_fewer_outputs_are_the_first_and_more_are_marked(form):
    boxes, scores, _ = CASES["distinct"]
    expected = GOLDEN["nms/distinct/0.5"]
    for count in (7, 300):
        run = jax.jit(partial(nms, threshold=0.5, max_outputs=count))
        np.testing.assert_array_equal(rows(run(boxes, scores)), expected[:count])


def test_ties_and_touching_boxes_by_hand(form):
    # Two alike: the first stays. The third only touches them. The fourth overlaps by 1/3.
    boxes = jnp.asarray([[0.0, 0, 2, 2], [0, 0, 2, 2], [2, 0, 4, 2], [1, 0, 3, 2]])
    scores = jnp.asarray([0.5, 0.5, 0.5, 0.5])
    for threshold, expected in ((0.3, [0, 2]), (0.34, [0, 2, 3])):
        run = jax.jit(partial(nms, threshold=threshold, max_outputs=4))
        np.testing.assert_array_equal(rows(run(boxes, scores)), expected)


def test_nothing_valid(form):
    boxes, scores = map(jnp.asarray, CASES["distinct"][:2])
    none = jnp.zeros(len(scores), bool)
    run = jax.jit(partial(nms, threshold=0.5, max_outputs=5, valid=none))
    assert rows(run(boxes, scores)).size == 0
    found, left = jax.jit(soft_nms, static_argnums=2)(boxes, scores, 5, valid=none)
    np.testing.assert_array_equal(found, 0)
    np.testing.assert_array_equal(left, 0)


@pytest.fixture(scope="module")
def forms():
    """Both forms, over a batch of images without a loop in Python."""

    def made(form):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(suppression, "_one_by_one", form)
            run = jax.jit(jax.vmap(lambda b, s, c, v: batched_nms(b, s, c, 0.4, 30, v)))
            shapes = [((3, 30, 4), "float32"), ((3, 30), "float32"), ((3, 30), "int32")]
            shapes.append(((3, 30), "bool"))
            return run.lower(*(jax.ShapeDtypeStruct(*shape) for shape in shapes)).compile()

    return [made(form) for form in (suppression._one_by_one, suppression._all_at_once)]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), steps=st.sampled_from([2, 10, 1000]))
def test_batches_follow_the_rule(forms, seed, steps):
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 12, (3, 30, 2))  # whole numbers: equal boxes, exact thresholds
    boxes = np.concatenate([corner, corner + rng.integers(0, 12, (3, 30, 2))], -1)
    boxes = boxes.astype(np.float32)
    scores = (rng.integers(0, steps, (3, 30)) / steps).astype(np.float32)
    classes = rng.integers(0, 2, (3, 30)).astype(np.int32)
    valid = rng.random((3, 30)) < 0.8
    found = [run(boxes, scores, classes, valid) for run in forms]
    for image in range(3):
        expected = greedy(boxes[image], scores[image], 0.4, classes[image], valid[image])
        for indices, kept in found:
            np.testing.assert_array_equal(rows((indices[image], kept[image])), expected)


def test_gradients_go_through_what_is_chosen():
    boxes, scores = map(jnp.asarray, CASES["distinct"][:2])

    def total(boxes, scores):
        indices, kept = nms(boxes, scores, 0.5, 7)
        return jnp.sum(jnp.where(kept, scores[indices] + boxes[indices, 0], 0))

    of_boxes, of_scores = jax.jit(jax.grad(total, (0, 1)))(boxes, scores)
    chosen = np.isin(np.arange(len(scores)), GOLDEN["nms/distinct/0.5"][:7])
    np.testing.assert_array_equal(of_scores, chosen)
    np.testing.assert_array_equal(of_boxes[:, 0], chosen)


def test_it_is_exported_for_all_platforms():
    boxes, scores = map(jnp.asarray, CASES["ties"][:2])
    run = jax.jit(partial(nms, threshold=0.5, max_outputs=90))
    exported = jax.export.export(run, platforms=["cpu", "cuda", "tpu"])(boxes, scores)
    found = jax.export.deserialize(exported.serialize()).call(boxes, scores)
    np.testing.assert_array_equal(rows(found), GOLDEN["nms/ties/0.5"])


@pytest.mark.parametrize("method", ["gaussian", "linear"])
@pytest.mark.parametrize("by_class", [False, True])
def test_soft_nms_equals_effdet(method, by_class):
    boxes, scores, classes = map(jnp.asarray, CASES["distinct"])
    key = f"{'batched_' if by_class else ''}soft_nms/{method}"
    options = {"method": method, "min_score": 0.05, "classes": classes if by_class else None}
    # Reference: what is below the least score at the start is pruned after the first round.
    expected = GOLDEN[f"{key}/indices"], GOLDEN[f"{key}/scores"]
    found, left = jax.jit(lambda b, s: soft_nms(b, s, 120, **options))(boxes, scores)
    count = len(expected[0])
    np.testing.assert_array_equal(found[:count], expected[0])
    np.testing.assert_allclose(left[:count], expected[1], rtol=1e-4)
    np.testing.assert_array_equal(left[count:], 0)


def test_soft_nms_by_hand():
    boxes = jnp.asarray([[0.0, 0, 2, 2], [0, 0, 2, 1], [8, 8, 9, 9], [0, 0, 2, 2]])
    scores = jnp.asarray([0.8, 0.6, 0.5, 0.001])
    found, left = soft_nms(boxes, scores, 4, method="linear", threshold=0.3)
    np.testing.assert_array_equal(found, [0, 2, 1, 0])
    np.testing.assert_allclose(left, [0.8, 0.5, 0.6 * 0.5, 0], rtol=1e-6)
    _, left = soft_nms(boxes, scores, 4, sigma=0.5)
    np.testing.assert_allclose(left, [0.8, 0.5, 0.6 * np.exp(-0.25 / 0.5), 0], rtol=1e-6)
