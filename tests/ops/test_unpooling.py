"""Unpooling: against the general form by indices, its gradients, and what each undoes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxvision.ops import pooling
from jaxvision.ops.pooling import max_pool2d, max_pool2d_with_indices, max_unpool2d
from jaxvision.ops.resize import resize
from jaxvision.ops.unpooling import (
    bed_of_nails2d,
    max_pool2d_with_switches,
    max_unpool2d_by_switches,
    nearest_unpool2d,
)

few = settings(max_examples=6, deadline=None, derandomize=True)
windows = st.tuples(st.integers(1, 3), st.integers(1, 3))


def draw(seed, *shape):
    # Small integers: most windows have ties.
    return jnp.asarray(np.random.default_rng(seed).integers(-3, 3, shape), jnp.float32)


@few
@given(windows, st.integers(3, 7), st.integers(3, 7))
def test_switches_are_the_indices(window, height, width):
    x, g = draw(0, 2, height, width, 3), draw(1, 2, height, width, 3)

    def by_switches(x):
        y, switches = max_pool2d_with_switches(x, window)
        return max_unpool2d_by_switches(y, switches, (height, width), window)

    def by_indices(x):
        y, indices = max_pool2d_with_indices(x, window)
        return max_unpool2d(y, indices, (height, width))

    @jax.jit
    def passes(x, g):
        values = []
        for form in (by_switches, by_indices):
            y, pull = jax.vjp(form, x)
            values.append((y, pull(g)[0]))
        pooled = max_pool2d_with_switches(x, window)[0]
        return (*values[0], pooled), (*values[1], max_pool2d(x, window))

    for ours, expected in zip(*passes(x, g), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_pooling_and_unpooling_by_switches_are_adjoint():
    x, y, g = draw(0, 2, 7, 5, 3), draw(1, 2, 3, 2, 3), draw(2, 2, 7, 5, 3)
    _, pull, switches = jax.vjp(max_pool2d_with_switches, x, has_aux=True)
    unpooled, pull_unpooled = jax.vjp(lambda y: max_unpool2d_by_switches(y, switches, (7, 5)), y)
    np.testing.assert_array_equal(pull(y)[0], unpooled)
    assert jnp.vdot(unpooled, g) == jnp.vdot(y, pull_unpooled(g)[0]) != 0


def test_nan_wins_as_with_indices():
    x = jnp.array([[1, np.nan, 3, 4], [np.nan, 0, -np.inf, 2]])[None, :, :, None]
    y, switches = max_pool2d_with_switches(x)
    _, indices = max_pool2d_with_indices(x, 2)
    np.testing.assert_array_equal(y.ravel(), [np.nan, 4])
    np.testing.assert_array_equal(switches.ravel(), [2, 1])
    np.testing.assert_array_equal(indices.ravel(), [4, 3])


def test_windows_with_more_taps_than_a_byte():
    with pytest.raises(ValueError, match=r"\(12, 11\) do not fit a byte"):
        max_pool2d_with_switches(jnp.zeros((1, 12, 12, 1)), (12, 11))


@few
@given(windows)
def test_nearest_is_the_nearest_resize_and_bed_of_nails_its_first_tap(factor):
    x = draw(0, 2, 3, 4, 2)
    nearest, nails = nearest_unpool2d(x, factor), bed_of_nails2d(x, factor)
    size = (3 * factor[0], 4 * factor[1])
    np.testing.assert_array_equal(nearest, resize(x, size, "nearest"))
    np.testing.assert_array_equal(nails[:, :: factor[0], :: factor[1]], x)
    assert jnp.abs(nails).sum() == jnp.abs(x).sum()


def test_gradients():
    x, y = (0.1 * draw(i, 1, *s, 2) + 0.37 for i, s in enumerate(((4, 6), (2, 3))))
    x += jnp.linspace(0, 1, x.size).reshape(x.shape)  # no ties: there the maximum has no gradient
    switches = max_pool2d_with_switches(x)[1]
    with jax.enable_x64(True):
        for form, value in (
            (lambda x: nearest_unpool2d(x, (2, 3)), x),
            (lambda x: bed_of_nails2d(x, 2), x),
            (lambda x: max_pool2d_with_switches(x)[0], x),
            (lambda y: max_unpool2d_by_switches(y, switches, (4, 6)), y),
        ):
            value = np.asarray(value, np.float64)
            check_grads(jax.jit(form), (value,), 1, ["rev"], atol=1e-6, rtol=1e-6)


@few
@given(windows, st.tuples(st.integers(1, 3), st.integers(1, 2)), windows)
def test_dilated_max_pooling(window, dilation, stride):
    x = draw(0, 2, 9, 8, 3)
    lie = pooling._window(x.shape[1:3], window, stride, 0, False, dilation)
    forms = [partial(f, lie) for f in (pooling._max_plain, pooling._max_taps, pooling._max_pool)]
    g = draw(1, *jax.eval_shape(forms[0], x).shape)
    expected = np.empty(g.shape, np.float32)
    for i, j in np.ndindex(*g.shape[1:3]):
        top, left = i * stride[0], j * stride[1]
        rows = slice(top, top + window[0] * dilation[0], dilation[0])
        columns = slice(left, left + window[1] * dilation[1], dilation[1])
        expected[:, i, j] = x[:, rows, columns].max((1, 2))

    @jax.jit
    def passes(x, g):
        pulled = [jax.vjp(form, x) for form in forms]
        return [(y, pull(g)[0]) for y, pull in pulled]

    found = passes(x, g)
    for y, dx in found:
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(dx, found[1][1])
    pooled = max_pool2d(x, window, stride, dilation=dilation)
    np.testing.assert_array_equal(pooled, expected)
