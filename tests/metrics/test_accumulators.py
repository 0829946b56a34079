"""Accumulators against scikit-learn, and their exactness."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, top_k_accuracy_score

from jaxvision import metrics
from jaxvision.metrics import ConfusionMatrix, Mean, TopK
from jaxvision.train import evaluation
from jaxvision.train.evaluation import Evaluator


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 3))
def test_confusion_matrix_equals_sklearn(seed, classes, parts):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, (4, 5, 6))
    guess = rng.integers(0, classes, (4, 5, 6))
    ignored = rng.random(true.shape) < 0.2
    marked = np.where(ignored, 255, true)
    merged = None
    for rows in np.array_split(np.arange(4), parts):
        new = ConfusionMatrix.of(jnp.asarray(guess[rows]), jnp.asarray(marked[rows]), classes)
        merged = new if merged is None else metrics.add(merged, new)
    kept = ~ignored.ravel()
    t, g = true.ravel()[kept], guess.ravel()[kept]
    labels = range(classes)
    np.testing.assert_array_equal(merged.counts, confusion_matrix(t, g, labels=labels))
    result = merged.compute("confusion")
    assert result["pixel_accuracy"] == pytest.approx(accuracy_score(t, g))
    present = np.union1d(t, g)
    expected = jaccard_score(t, g, labels=present, average=None, zero_division=0)
    assert result["miou"] == pytest.approx(expected.mean())


def test_absent_classes_are_left_out_of_the_mean():
    matrix = ConfusionMatrix(counts=np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    result = matrix.compute("")
    assert result["iou/0"] == pytest.approx(3 / 4)
    assert result["iou/1"] == pytest.approx(4 / 5)
    assert np.isnan(result["iou/2"])
    assert result["miou"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert result["mean_class_accuracy"] == pytest.approx((3 / 4 + 1) / 2)


def test_all_void_gives_nan_and_no_crash():
    matrix = ConfusionMatrix.of(jnp.zeros((2, 3), int), jnp.full((2, 3), 255), 2)
    assert np.isnan(matrix.compute("")["miou"])
    assert np.isnan(matrix.compute("")["pixel_accuracy"])


@pytest.mark.parametrize("k", [1, 3])
def test_top_k_equals_sklearn_and_leaves_padding_out(k):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 7)).astype(np.float32), rng.integers(0, 7, 50)
    mask = np.arange(50) < 40
    found = TopK.of(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(mask), k)
    expected = top_k_accuracy_score(labels[:40], logits[:40], k=k, labels=range(7))
    assert found.compute("a")["a"] == pytest.approx(expected)
    assert int(found.count) == 40


def test_top_1_of_equal_scores_is_argmax_and_nan_is_wrong():
    logits = jnp.array([[1.0, 1.0], [1.0, 1.0], [jnp.nan, jnp.nan]])
    found = TopK.of(logits, jnp.array([0, 1, 0]), jnp.ones(3, bool), 1)
    assert int(found.correct) == 1


def test_mean_is_weighted_and_merges():
    a = Mean.of(jnp.array([1.0, jnp.nan]), jnp.array([1.0, 0.0]))
    b = Mean.of(jnp.array([4.0]), jnp.array([2.0]))
    assert metrics.compute({"m": metrics.add(a, b)}) == {"m": pytest.approx(3.0)}


class Fixed:
    """A task that measures the same of every batch; its rows are the numbers of their batches."""

    metrics: ClassVar[dict] = {}

    def __init__(self, sums):
        self.sums = sums

    def evaluate(self, variables, batch, key):
        rows = {"number": batch["number"]} if "number" in batch else {}
        return self.sums, rows

    def score(self, rows):
        return {"rows": len(rows["number"]), "total": float(rows["number"].sum())}


def test_counts_stay_exact_beyond_32_bits():
    big = ConfusionMatrix(counts=jnp.full((2, 2), 2**24 + 1, jnp.int32))
    _, found = Evaluator(Fixed({"c": big}), 0)(None, iter([{}] * 200))
    assert found["c"].counts.dtype == np.int64
    assert (found["c"].counts == 200 * (2**24 + 1)).all()


def test_large_batches_are_folded_before_counts_overflow(monkeypatch):
    monkeypatch.setattr(evaluation, "_FOLD_ABOVE", 100)
    nearly = ConfusionMatrix(counts=jnp.full((2, 2), 2**31 - 1, jnp.int32))
    batch = {"image": np.zeros(100)}
    _, found = Evaluator(Fixed({"c": nearly}), 0)(None, iter([batch] * 3))
    assert (found["c"].counts == 3 * (2**31 - 1)).all()


def test_evaluation_can_be_cancelled():
    evaluator = Evaluator(Fixed({"m": Mean.of(jnp.ones(1), jnp.ones(1))}), 0)
    assert evaluator(None, iter([{}] * 3), cancelled=lambda: True) is None
    result, sums = evaluator(None, iter([{}] * 3))
    assert jax.tree.leaves(sums) == [3.0, 3.0]
    assert result == {"m": 1.0}


def test_rows_go_to_the_host_without_those_that_fill_a_batch():
    batches = [
        {
            "number": jnp.arange(4.0) + 4 * k,
            "valid": jnp.arange(4) < (4 if k < 2 else 1),
            "image_id": jnp.arange(4) + 4 * k,
        }
        for k in range(3)
    ]
    result, _ = Evaluator(Fixed({}), 0)(None, iter(batches))
    assert result == {"rows": 9, "total": sum(range(9))}


def test_rows_are_in_the_order_of_the_records_whatever_their_batches():
    evaluator = Evaluator(Fixed({}), 0)
    evaluator(
        None,
        iter(
            {
                "number": 10.0 * jnp.array(records),
                "valid": jnp.array(records) >= 0,
                "image_id": jnp.array(records),
            }
            for records in ([1, 4, -1], [0, 2, 3])
        ),
    )
    assert evaluator.rows["number"].tolist() == [0, 10, 20, 30, 40]
    assert evaluator.rows.keys() == {"number"}
