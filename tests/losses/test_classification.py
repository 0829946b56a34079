"""Losses against the definitions and torch's numbers."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from jaxvision.losses import cross_entropy, masked_mean, multiclass_hinge, penalty


def test_the_lecture_example():
    # Scores 3.2, 5.1, -1.7: exp 24.5, 164.0, 0.18; probability of the first class 0.13.
    logits = jnp.array([[3.2, 5.1, -1.7]])
    loss, weight = cross_entropy(logits, jnp.array([0]))
    assert np.exp(-loss[0]) == pytest.approx(0.13, abs=0.005)
    assert loss[0] == pytest.approx(2.0404, abs=1e-4)
    assert weight[0] == 1


def test_torch_numbers_with_weights_and_smoothing():
    # torch.nn.CrossEntropyLoss(weight=[1, 2, .5], label_smoothing=0.1) of these gives 2.5112197.
    logits = jnp.array([[1.0, -2.0, 0.5], [0.1, 0.2, 0.3], [3.0, 0.0, -1.0]])
    labels = jnp.array([1, 2, 0])
    loss, weight = cross_entropy(logits, labels, label_smoothing=0.1, class_weights=(1.0, 2.0, 0.5))
    p = log_softmax(np.asarray(logits, np.float64), -1)
    w = np.array([1, 2, 0.5])
    nll = -w[[1, 2, 0]] * p[[0, 1, 2], [1, 2, 0]]
    smooth = -(p * w).sum(-1)
    expected = (0.9 * nll.sum() + 0.1 / 3 * smooth.sum()) / w[[1, 2, 0]].sum()
    assert float(loss.sum() / weight.sum()) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 7), st.floats(0, 0.5), st.integers(0, 2**31))
def test_probability_targets_agree_with_indices(classes, smoothing, seed):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(size=(5, classes)) * 4, jnp.float32)
    labels = jnp.asarray(rng.integers(0, classes, 5))
    a, _ = cross_entropy(logits, labels, label_smoothing=smoothing)
    b, _ = cross_entropy(logits, jax.nn.one_hot(labels, classes), label_smoothing=smoothing)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_bfloat16_logits_are_computed_in_float32():
    loss, _ = cross_entropy(jnp.array([[20.0, 0.0]], jnp.bfloat16), jnp.array([1]))
    assert loss.dtype == jnp.float32
    assert float(loss[0]) == pytest.approx(20.0, abs=1e-3)


def test_masked_mean_ignores_what_is_masked_even_nan():
    values, weights = jnp.array([1.0, jnp.nan, 3.0]), jnp.array([1.0, 1.0, 3.0])
    mask = jnp.array([True, False, True])
    assert float(masked_mean(values, weights, mask)) == 1.0
    assert float(masked_mean(values, weights, jnp.zeros(3, bool))) == 0.0


def test_penalty_counts_kernels_alone():
    params = {"conv": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([100.0])}}
    assert float(penalty(params, l1=0.5)) == 1.5
    assert float(penalty(params, l2=0.5)) == pytest.approx(0.25 * 5)
    gradient = jax.grad(lambda p: penalty(p, l2=0.1))(params)
    np.testing.assert_allclose(gradient["conv"]["kernel"], [[0.1, -0.2]], rtol=1e-6)
    assert float(gradient["conv"]["bias"][0]) == 0


def test_shapes_are_checked_at_run_time():
    """As in all pure functions, by the import hook in tests/conftest.py."""
    with pytest.raises(jaxtyping.TypeCheckError, match="masked_mean"):
        masked_mean(jnp.ones(3), jnp.ones(4), jnp.ones(3, bool))
    with pytest.raises(jaxtyping.TypeCheckError, match="logits"):
        cross_entropy(jnp.ones((2, 3), int), jnp.ones(2, int))


def test_temperature_divides_the_logits():
    logits, labels = jnp.array([[3.2, 5.1, -1.7]]), jnp.array([0])
    cool, _ = cross_entropy(logits, labels, temperature=4.0)
    assert float(cool[0]) == pytest.approx(float(cross_entropy(logits / 4, labels)[0][0]))
    assert float(cool[0]) == pytest.approx(
        -log_softmax(np.array([0.8, 1.275, -0.425]))[0], abs=1e-6
    )


def test_the_lecture_example_of_the_hinge():
    # Scores 3.2, 5.1, -1.7, truth the first: max(0, 5.1-3.2+1) + max(0, -1.7-3.2+1) = 2.9.
    logits = jnp.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    loss, weight = multiclass_hinge(logits, jnp.array([0, 1, 2]))
    np.testing.assert_allclose(loss, [2.9, 0.0, 12.9], atol=1e-5)
    np.testing.assert_array_equal(weight, 1)
    np.testing.assert_allclose(jax.nn.softmax(logits[0]), [0.13, 0.87, 0.00], atol=0.005)
    worst, _ = multiclass_hinge(logits, jnp.array([0, 1, 2]), over="max")
    np.testing.assert_allclose(worst, [2.9, 0.0, 6.6], atol=1e-5)
    weighted, weight = multiclass_hinge(logits, jnp.array([0, 1, 2]), class_weights=(2.0, 1.0, 0.5))
    np.testing.assert_allclose(weighted, [5.8, 0.0, 6.45], atol=1e-5)
    np.testing.assert_array_equal(weight, [2, 1, 0.5])


@pytest.mark.parametrize("over", ["sum", "max"])
def test_hinge_of_probabilities_is_the_expected_hinge(over):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 4, (2, 3)))
    of_labels, _ = multiclass_hinge(logits, labels, over=over)
    certain, weight = multiclass_hinge(logits, jax.nn.one_hot(labels, 4), over=over)
    np.testing.assert_allclose(certain, of_labels, rtol=1e-6)
    assert weight.shape == (2, 3)
