"""The forms that layers share on CPUs, against plain programs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxvision.ops import attention, forms, linear

many = settings(max_examples=10, deadline=None, derandomize=True)
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple)
# Every rank parity, an axis of one, and one that no vector register divides; more are slow.
SHAPES = [(5,), (1, 3), (2, 3, 4), (2, 1, 3, 5)]


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def check_gradients(function, arrays, order=1):
    """Against differences of the function's values."""
    check_grads(jax.jit(function), arrays, order, modes=["rev"], rtol=2e-2)


@pytest.mark.parametrize("shape", SHAPES)
def test_channel_sum(shape):
    x = normal(*shape)
    expected = np.asarray(x, np.float64).reshape(-1, shape[-1]).sum(0)
    for form in (forms._ones_product, forms._batch_reduction, forms._channel_sum):
        np.testing.assert_allclose(jax.jit(form, static_argnums=0)(None, x), expected, 1e-5, 1e-5)
    check_gradients(forms.channel_sum, (x,), order=2)


@pytest.mark.parametrize("shape", SHAPES)
def test_channel_sums(shape):
    arrays = normal(*shape), normal(*shape, seed=1)
    expected = [np.asarray(x, np.float64).reshape(-1, shape[-1]).sum(0) for x in arrays]
    for form in (forms._row_by_row, forms._batch_reductions, forms.channel_sums):
        np.testing.assert_allclose(jax.jit(form)(*arrays), expected, 1e-5, 1e-5)
    check_gradients(lambda *arrays: sum(forms.channel_sums(*arrays)), arrays, order=2)


def test_sums_over_the_batch_are_as_exact_as_a_reduction():
    x = 1000 + normal(8, 64, 64, 16)
    expected = np.asarray(x, np.float64).sum((0, 1, 2))
    for form in (forms._ones_product, forms._batch_reduction):
        found = jax.jit(form, static_argnums=0)(None, x)
        np.testing.assert_allclose(found, expected, 5e-6)
    np.testing.assert_allclose(jax.jit(forms._row_by_row)(x)[0], expected, 5e-6)


def test_sums_of_half_precision_are_in_single():
    x = jnp.full((4096, 2), 1.0, jnp.bfloat16)
    assert forms.channel_sum(x).dtype == jnp.float32
    np.testing.assert_array_equal(forms.channel_sum(x), 4096)
    np.testing.assert_array_equal(forms.channel_sums(x[None])[0], 4096)
    np.testing.assert_array_equal(forms.square_sum(x), 8192)


@pytest.mark.parametrize("shape", SHAPES)
def test_square_sum(shape):
    x = normal(*shape)
    np.testing.assert_allclose(forms.square_sum(x), np.sum(np.square(x)), 1e-5)
    check_gradients(forms.square_sum, (x,))


@pytest.mark.parametrize("shape", SHAPES)
def test_weighted_sum(shape):
    x, weights = normal(*shape), normal(shape[-1], seed=1)
    expected = (np.asarray(x) * np.asarray(weights)).sum(-1)
    for form in (forms._row_product, forms._row_reduction, forms._weighted_sum):
        np.testing.assert_allclose(form(None, x, weights), expected, 1e-5, 1e-5)
    check_gradients(forms.weighted_sum, (x, weights))


@pytest.mark.parametrize("shape", SHAPES)
def test_computed_once_is_the_identity(shape):
    x = normal(*shape)
    y, pull = jax.jit(lambda x: jax.vjp(forms.computed_once, x))(x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(pull(2 * x)[0], 2 * x)


@pytest.mark.slow
@pytest.mark.parametrize(
    "check",
    [
        test_channel_sum,
        test_channel_sums,
        test_square_sum,
        test_weighted_sum,
        test_computed_once_is_the_identity,
    ],
)
def test_more_shapes(check):
    many(given(shapes)(check))()


def check_matmul_and_bias(shape, features):
    x, kernel, bias = normal(*shape), normal(shape[-1], features, seed=1), normal(features, seed=2)
    y = linear.add_bias(linear.matmul(x, kernel), bias)
    np.testing.assert_allclose(y, np.asarray(x) @ np.asarray(kernel) + bias, 1e-5, 1e-5)
    layer = lambda x, kernel, bias: linear.add_bias(linear.matmul(x, kernel), bias)  # noqa: E731
    check_gradients(layer, (x, kernel, bias), order=2)


@pytest.mark.parametrize(("shape", "features"), [((3,), 1), ((1, 2), 4), ((2, 3, 4), 3)])
def test_matmul_and_bias(shape, features):
    check_matmul_and_bias(shape, features)


@pytest.mark.slow
def test_matmul_and_bias_of_more_shapes():
    many(given(shapes, st.integers(1, 4))(check_matmul_and_bias))()


@pytest.mark.parametrize("bias", [None, (1, 3), (1, 1), (2, 3), (6, 1)])
def test_attention_forms_agree(bias):
    q, k, v = normal(6, 5, 3, 4), normal(6, 7, 3, 4, seed=1), normal(6, 7, 3, 4, seed=2)
    arrays = (q, k, v) if bias is None else (q, k, v, normal(*bias, 5, 7, seed=3))

    def by_hand(q, k, v, bias=None):
        logits = jnp.einsum("bnhd,bmhd->bhnm", q, k) / 2
        if bias is not None:
            logits += jnp.tile(bias, (len(q) // len(bias), 1, 1, 1))
        return jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(logits), v)

    def value_and_gradients(form):
        y, pull = jax.vjp(form, *arrays)
        return y, pull(jnp.cos(y))

    expected = jax.tree.leaves(value_and_gradients(by_hand))
    for form in (attention._default, attention._by_heads, attention._attention):
        found = jax.jit(partial(value_and_gradients, partial(form, None)))()
        for a, b in zip(jax.tree.leaves(found), expected, strict=True):
            np.testing.assert_allclose(a, b, 1e-4, 1e-5)
