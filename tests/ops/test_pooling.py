"""Pooling against PyTorch's definitions, and every form against every other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.ops import pooling
from jaxvision.ops.pooling import (
    adaptive_avg_pool2d,
    avg_pool2d,
    global_average_pool,
    max_pool2d,
    max_pool2d_with_indices,
    max_unpool2d,
)

few = settings(max_examples=5, deadline=None, derandomize=True)

# Ties, negative values next to the padding, and a size that ceil_mode rounds up.
MAP = [[3, 3, 1, 0, 2], [3, 0, 2, 2, 2], [-1, -1, -5, 2, 7], [4, -2, 0, 7, 7]]
# What PyTorch 2.13 makes of it with a 3x3 window, stride 2, padding 1 and ceil_mode.
MAX = [[3, 3, 2], [4, 7, 7], [4, 7, 7]]
MAX_INDICES = [[0, 1, 4], [15, 18, 14], [15, 18, 18]]
MAX_GRADIENT = [[1, 2, 0, 0, 3], [0, 0, 0, 0, 0], [0, 0, 0, 0, 6], [11, 0, 0, 22, 0]]
AVERAGE = [[1, 0.8889, 0.6667], [0.3333, 0.5556, 3], [0.3333, 0.8333, 2.3333]]
AVERAGE_WITHOUT_PADDING = [[2.25, 1.3333, 1.5], [0.5, 0.5556, 4.5], [1, 1.6667, 7]]


def nhwc(rows):
    return jnp.array(rows, jnp.float32)[None, :, :, None]


def rows(x):
    return np.asarray(x)[0, :, :, 0]


@st.composite
def poolings(draw):
    size, window, stride = (draw(st.tuples(*[st.integers(1, n)] * 2)) for n in (9, 4, 3))
    padding = tuple(draw(st.integers(0, k // 2)) for k in window)
    size = tuple(max(n, k - 2 * p) for n, k, p in zip(size, window, padding, strict=True))
    return size, (window, stride, padding, draw(st.booleans()))


def loop(x, window, stride, padding, ceil_mode, visit):
    """Visits the windows as the loops of PyTorch's CPU kernels do."""
    sizes = []
    for n, k, s, p in zip(x.shape[1:3], window, stride, padding, strict=True):
        count = -((n + 2 * p - k) // -s) + 1 if ceil_mode else (n + 2 * p - k) // s + 1
        sizes.append(count - (ceil_mode and (count - 1) * s >= n + p))
    y = np.zeros((x.shape[0], *sizes, x.shape[3]), np.float32)
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            corner = np.array([i, j]) * stride - padding
            y[:, i, j] = visit(x, corner, corner + window)
    return y


def assert_same_gradients(forms, x):
    shape = jax.eval_shape(forms[0], x).shape
    g = jnp.asarray(np.random.default_rng(1).normal(size=shape), x.dtype)
    expected, *others = jax.jit(lambda x: [jax.vjp(form, x)[1](g)[0] for form in forms])(x)
    for other in others:
        np.testing.assert_allclose(
            np.asarray(other, np.float32), np.asarray(expected, np.float32), 1e-5, 1e-5
        )


@few
@given(poolings())
def test_max_pool(case):
    size, options = case
    # Small integers: most windows have ties.
    draw = np.random.default_rng(0).integers(-3, 3, (2, *size, 3))
    x = jnp.asarray(draw, jnp.float32)

    def visit(x, low, high):
        top, left = np.maximum(low, 0)
        return x[:, top : high[0], left : high[1]].max((1, 2))

    expected = loop(np.asarray(x), *options, visit)
    window = pooling._window(x.shape[1:3], *options)
    forms = [partial(f, window) for f in (pooling._max_plain, pooling._max_taps, pooling._max_pool)]
    for y in jax.jit(lambda x: [f(x) for f in (*forms, lambda x: max_pool2d(x, *options))])(x):
        np.testing.assert_array_equal(y, expected)
    assert_same_gradients(forms, x)
    y, indices = jax.jit(lambda x: max_pool2d_with_indices(x, *options))(x)
    np.testing.assert_array_equal(y, expected)
    flat = x.reshape(2, -1, 3)
    there = jnp.take_along_axis(flat, indices.reshape(2, -1, 3), axis=1)
    np.testing.assert_array_equal(there.reshape(y.shape), expected)


@few
@given(poolings(), st.booleans())
def test_avg_pool(case, include):
    size, options = case
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *size, 3)), jnp.float32)
    padding = np.array(options[2])

    def visit(x, low, high):
        end = np.array(x.shape[1:3])
        inner = np.minimum(high, end) - np.maximum(low, 0)
        count = np.minimum(high, end + padding) - low if include else inner
        (top, left), (bottom, right) = np.maximum(low, 0), high
        return x[:, top:bottom, left:right].sum((1, 2)) / count.prod()

    expected = loop(np.asarray(x), *options, visit)
    np.testing.assert_allclose(avg_pool2d(x, *options, include), expected, 1e-5, 1e-5)
    window = pooling._window(x.shape[1:3], *options)
    forms = [partial(f, window) for f in (pooling._sum_plain, pooling._sum_taps, pooling._sum_pool)]
    first, *others = jax.jit(lambda x: [form(x) for form in forms])(x)
    for other in others:
        np.testing.assert_allclose(other, first, 1e-5, 1e-5)
    assert_same_gradients(forms, x)


@pytest.mark.parametrize("form", ["_max_plain", "_max_taps", "_max_pool"])
def test_max_pool_matches_pytorch(form):
    # torch.nn.functional.max_pool2d(x, 3, 2, 1, ceil_mode=True), gradient of 1, 2, 3, ...
    x = nhwc(MAP)
    pool = partial(getattr(pooling, form), pooling._window(x.shape[1:3], 3, 2, 1, True))
    y, pull = jax.vjp(pool, x)
    np.testing.assert_array_equal(rows(y), MAX)
    g = jnp.arange(1.0, 1 + y.size).reshape(y.shape)
    np.testing.assert_array_equal(rows(pull(g)[0]), MAX_GRADIENT)


def test_indices_match_pytorch():
    y, indices = max_pool2d_with_indices(nhwc(MAP), 3, 2, 1, ceil_mode=True)
    np.testing.assert_array_equal(rows(y), MAX)
    np.testing.assert_array_equal(rows(indices), MAX_INDICES)


def test_avg_pool_matches_pytorch():
    ours = avg_pool2d(nhwc(MAP), 3, 2, 1, ceil_mode=True)
    np.testing.assert_allclose(rows(ours), AVERAGE, atol=1e-4)
    ours = avg_pool2d(nhwc(MAP), 3, 2, 1, ceil_mode=True, count_include_pad=False)
    np.testing.assert_allclose(rows(ours), AVERAGE_WITHOUT_PADDING, atol=1e-4)


def test_nan_and_infinity():
    x = nhwc([[1, np.nan, 3, 4], [np.nan, 0, -np.inf, 2]])
    y, indices = max_pool2d_with_indices(x, 2)
    np.testing.assert_array_equal(rows(y), [[np.nan, 4]])
    np.testing.assert_array_equal(rows(indices), [[4, 3]])
    y, indices = max_pool2d_with_indices(jnp.full((1, 3, 3, 1), -jnp.inf), 3, 2, 1)
    np.testing.assert_array_equal(rows(indices), [[0, 1], [3, 4]])


@pytest.mark.parametrize("pool", [max_pool2d, avg_pool2d])
def test_bfloat16_and_vmap(pool):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 5, 6, 4)), jnp.bfloat16)
    y = jax.vmap(lambda x: pool(x, 3, 2, 1))(x)
    assert y.dtype == jnp.bfloat16
    exact = jnp.stack([pool(sample.astype(jnp.float32), 3, 2, 1) for sample in x])
    np.testing.assert_allclose(y.astype(jnp.float32), exact, 1e-2, 1e-2)
    loss = lambda x: jnp.sum(jnp.sin(pool(x, 3, 2, 1)))  # noqa: E731
    expected = jax.grad(loss)(x[0].astype(jnp.float32))
    assert jax.grad(loss)(x[0]).dtype == jnp.bfloat16
    np.testing.assert_allclose(jax.grad(jax.checkpoint(loss))(x[0]), expected, 5e-2, 5e-2)


# torch.nn.functional.adaptive_avg_pool2d of the 4x5 map of squares 0, 1, 4, ... over ten.
ADAPTIVE = {
    (3, 2): [[1.9167, 3.7167], [7.9167, 11.7167], [18.9167, 24.7167]],
    (2, 7): [
        [1.25, 1.55, 2.25, 2.65, 3.15, 4.25, 4.85],
        [16.25, 17.55, 20.25, 21.65, 23.15, 26.25, 27.85],
    ],
    (6, 3): [
        [0.05, 0.4667, 1.25],
        [1.55, 2.7167, 4.25],
        [3.05, 4.9667, 7.25],
        [11.05, 14.4667, 18.25],
        [17.55, 21.7167, 26.25],
        [24.05, 28.9667, 34.25],
    ],
}


@pytest.mark.parametrize("size", ADAPTIVE)
def test_adaptive_avg_pool_matches_pytorch(size):
    x = nhwc(np.arange(20.0).reshape(4, 5) ** 2 / 10)
    np.testing.assert_allclose(rows(adaptive_avg_pool2d(x, size)), ADAPTIVE[size], atol=1e-4)
    assert adaptive_avg_pool2d(x.astype(jnp.bfloat16), size).dtype == jnp.bfloat16


def test_adaptive_avg_pool_of_sizes_that_divide_is_a_plain_mean():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 8, 3)), jnp.float32)
    np.testing.assert_allclose(adaptive_avg_pool2d(x, (3, 2)), avg_pool2d(x, (2, 4)), 1e-5, 1e-6)
    np.testing.assert_array_equal(adaptive_avg_pool2d(x, (6, 8)), x)


def test_global_average_pool():
    x = jnp.arange(24.0).reshape(1, 2, 3, 4)
    np.testing.assert_allclose(global_average_pool(x), [[10, 11, 12, 13]])


def test_max_unpool_puts_the_maxima_back():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 6, 3)), jnp.float32)
    y, indices = max_pool2d_with_indices(x, 2)
    back = max_unpool2d(y, indices, (5, 6))
    np.testing.assert_array_equal(back, jnp.where(back != 0, x, 0))
    assert int((back != 0).sum()) == y.size
    np.testing.assert_array_equal(max_pool2d(jnp.where(back != 0, x, -9), 2), y)
    g = jnp.asarray(np.random.default_rng(1).normal(size=x.shape), jnp.float32)
    dy = jax.vjp(lambda y: max_unpool2d(y, indices, (5, 6)), y)[1](g)[0]
    expected = jnp.take_along_axis(g.reshape(2, -1, 3), indices.reshape(2, -1, 3), 1)
    np.testing.assert_array_equal(dy, expected.reshape(dy.shape))


def test_padding_beyond_half_the_window_is_refused():
    with pytest.raises(ValueError, match="more than half"):
        max_pool2d(nhwc(MAP), 2, padding=2)
    with pytest.raises(ValueError, match="does not fit"):
        avg_pool2d(nhwc(MAP), 6)
