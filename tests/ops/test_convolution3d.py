"""Convolutions of volumes: every form against every other, and against PyTorch's sizes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.layers.convolution import Conv3d, ConvTranspose3d
from jaxvision.ops import convolution3d
from jaxvision.ops.convolution import conv2d
from jaxvision.ops.convolution3d import Form, conv3d, conv_transpose3d

few = settings(max_examples=3, deadline=None, derandomize=True)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@st.composite
def convolutions(draw):
    """(size, kernel, form), with a window that fits."""
    three = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * 3))  # noqa: E731
    kernel, stride, dilation = three(1, 3), three(1, 2), three(1, 2)
    padding = tuple(draw(st.integers(0, k - 1)) for k in kernel)
    span = [(k - 1) * d + 1 - 2 * p for k, d, p in zip(kernel, dilation, padding)]
    size = tuple(draw(st.integers(max(1, n), max(1, n) + 3)) for n in span)
    return size, kernel, Form(stride, padding, dilation)


def passes(form, g, *arrays):
    y, pull = jax.vjp(form, *arrays)
    return y, *pull(g)


def assert_equal_forms(forms, *arrays):
    g = normal(9, *jax.eval_shape(forms[0], *arrays).shape)
    expected, *others = jax.jit(lambda g, *a: [passes(form, g, *a) for form in forms])(g, *arrays)
    for other in others:
        for ours, theirs in zip(other, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, 1e-4, 1e-4)


@few
@given(convolutions())
def test_convolution(case):
    size, kernel, form = case
    x, kernel = normal(0, 2, *size, 3), normal(1, *kernel, 3, 4)
    options = {"stride": form.stride, "padding": form.padding, "dilation": form.dilation}
    forms = [
        partial(convolution3d._conv_plain, form),
        partial(convolution3d._conv_by_maps, form),
        lambda x, k: conv3d(x, k, **options),
    ]
    assert_equal_forms(forms, x, kernel)


@few
@given(convolutions())
def test_transposed_convolution_is_the_adjoint(case):
    size, kernel, form = case
    form = form._replace(dilation=(1, 1, 1))
    size = tuple(max(n, k - 2 * p) for n, k, p in zip(size, kernel, form.padding))
    left = [
        (n + 2 * p - k) % s
        for n, k, s, p in zip(size, kernel, form.stride, form.padding, strict=True)
    ]
    form = form._replace(extra=tuple(left))
    x, kernel = normal(0, 2, *size, 3), normal(1, *kernel, 3, 4)

    def convolve(x):
        return conv3d(x, kernel, stride=form.stride, padding=form.padding)

    g = normal(2, *jax.eval_shape(convolve, x).shape)
    options = {"stride": form.stride, "padding": form.padding, "output_padding": left}

    @jax.jit
    def both(x, g):
        return conv_transpose3d(g, kernel, **options), jax.vjp(convolve, x)[1](g)[0]

    np.testing.assert_allclose(*both(x, g), 1e-4, 1e-4)
    forms = [
        partial(convolution3d._transpose_plain, form),
        partial(convolution3d._transpose_by_maps, form),
    ]
    assert_equal_forms(forms, g, kernel)


def test_windows_that_do_not_overlap():
    x, kernel = normal(0, 2, 2, 3, 4, 5), normal(1, 2, 1, 3, 6, 5)
    form = Form((2, 1, 3))
    forms = [
        partial(convolution3d._transpose_plain, form),
        lambda x, k: conv_transpose3d(x, k, stride=(2, 1, 3)),
    ]
    assert forms[1](x, kernel).shape == (2, 4, 3, 12, 6)
    assert_equal_forms(forms, x, kernel)


def test_a_flat_kernel_convolves_each_slice():
    x, kernel = normal(0, 2, 3, 5, 6, 2), normal(1, 1, 3, 3, 2, 4)
    slices = conv2d(x.reshape(6, 5, 6, 2), kernel[0], padding=1).reshape(2, 3, 5, 6, 4)
    np.testing.assert_allclose(conv3d(x, kernel, padding=(0, 1, 1)), slices, 1e-5, 1e-5)


def test_layers():
    x, key = normal(0, 1, 4, 5, 6, 2), jax.random.key(0, impl="rbg")  # compiles sooner
    up, down = ConvTranspose3d(3, 2, 2), Conv3d(3, 5)
    y, variables = down.init_with_output(key, x)
    assert y.shape == (1, 4, 5, 6, 3)
    assert variables["params"]["kernel"].shape == (5, 5, 5, 2, 3)
    assert variables["params"]["bias"].shape == (3,)
    y, variables = up.init_with_output(key, x)
    assert y.shape == (1, 8, 10, 12, 3)
    assert variables["params"]["kernel"].shape == (2, 2, 2, 3, 2)
