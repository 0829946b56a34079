"""The worked examples of CS231n's lecture on segmentation, number for number.

And what they teach, for any numbers: a transposed convolution is the transpose of a convolution's
matrix, a convolution is im2col and a matrix product, a dilated one has a kernel with holes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxvision.layers.convolution import ConvTranspose2d, bilinear
from jaxvision.ops.convolution import conv2d, conv_transpose2d
from jaxvision.ops.matrices import conv_matrix, im2col
from jaxvision.ops.pooling import max_pool2d, max_pool2d_with_indices, max_unpool2d
from jaxvision.ops.resize import resize
from jaxvision.ops.unpooling import (
    bed_of_nails2d,
    max_pool2d_with_switches,
    max_unpool2d_by_switches,
    nearest_unpool2d,
)

few = settings(max_examples=8, deadline=None, derandomize=True)
SMALL = [[1, 2], [3, 4]]
POOLED = [[1, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]]


def nhwc(rows):
    return jnp.array(rows, jnp.float32)[None, :, :, None]


def rows(x):
    return np.asarray(x)[0, :, :, 0]


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_nearest_neighbour():
    expected = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    np.testing.assert_array_equal(rows(nearest_unpool2d(nhwc(SMALL), 2)), expected)


def test_bed_of_nails():
    expected = [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(rows(bed_of_nails2d(nhwc(SMALL), 2)), expected)


def test_max_unpooling():
    expected = [[0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]
    y, switches = max_pool2d_with_switches(nhwc(POOLED))
    np.testing.assert_array_equal(rows(y), [[5, 6], [7, 8]])
    unpooled = max_unpool2d_by_switches(nhwc(SMALL), switches, (4, 4))
    np.testing.assert_array_equal(rows(unpooled), expected)
    y, indices = max_pool2d_with_indices(nhwc(POOLED), 2)
    np.testing.assert_array_equal(rows(y), [[5, 6], [7, 8]])
    np.testing.assert_array_equal(rows(max_unpool2d(nhwc(SMALL), indices, 4)), expected)


def test_bilinear():
    # The outer edges of the corner pixels stay where they are, as on the slide; or their centres.
    edges = [[1, 1.25, 1.75, 2], [1.5, 1.75, 2.25, 2.5], [2.5, 2.75, 3.25, 3.5], [3, 3.25, 3.75, 4]]
    np.testing.assert_allclose(rows(resize(nhwc(SMALL), 4)), edges, atol=1e-6)
    thirds = np.arange(4) / 3
    centres = 1 + 2 * thirds[:, None] + thirds
    aligned = resize(nhwc(SMALL), 4, align_corners=True)
    np.testing.assert_allclose(rows(aligned), centres, atol=1e-6)


X, Y, Z = 2.0, 3.0, 5.0
A, B, C, D = 7.0, 11.0, 13.0, 17.0


def test_convolution_of_four_by_four_is_a_matrix_of_four_by_sixteen():
    kernel, x, y = normal(0, 3, 3), normal(1, 4, 4), normal(2, 2, 2)
    matrix = conv_matrix(kernel, 4)
    assert matrix.shape == (4, 16)
    # Its first row is the kernel on the map's first three rows, with a zero after each.
    first = np.zeros((4, 4))
    first[:3, :3] = kernel
    np.testing.assert_array_equal(matrix[0], first.ravel())
    kernel, x, y = kernel[..., None, None], x[None, ..., None], y[None, ..., None]
    np.testing.assert_allclose(matrix @ x.ravel(), conv2d(x, kernel).ravel(), atol=1e-5)
    transposed = conv_transpose2d(y, kernel, stride=1)
    assert transposed.shape == (1, 4, 4, 1)
    np.testing.assert_allclose(matrix.T @ y.ravel(), transposed.ravel(), atol=1e-5)


def test_convolution_of_a_row_with_stride_one():
    matrix = conv_matrix(jnp.array([X, Y, Z]), 6)
    expected = [[X, Y, Z, 0, 0, 0], [0, X, Y, Z, 0, 0], [0, 0, X, Y, Z, 0], [0, 0, 0, X, Y, Z]]
    np.testing.assert_array_equal(matrix, expected)
    row = jnp.array([0, A, B, C, D, 0])
    convolved = [A * Y + B * Z, A * X + B * Y + C * Z, B * X + C * Y + D * Z, C * X + D * Y]
    np.testing.assert_array_equal(matrix @ row, convolved)
    # With stride one its transpose is a convolution again, of the flipped kernel.
    row = jnp.array([A, B, C, D])
    np.testing.assert_array_equal(matrix.T @ row, np.convolve(row, [X, Y, Z]))
    padded = conv_matrix(jnp.array([X, Y, Z]), 4, padding=1)
    np.testing.assert_array_equal(padded, np.array(expected)[:, 1:5])


def test_transposed_convolution_of_a_row_with_stride_two():
    kernel, row = jnp.array([X, Y, Z]), jnp.array([A, B])
    expected = [A * X, A * Y, A * Z + B * X, B * Y, B * Z]
    matrix = conv_matrix(kernel, 5, stride=2)
    np.testing.assert_array_equal(matrix, [[X, Y, Z, 0, 0], [0, 0, X, Y, Z]])
    np.testing.assert_array_equal(matrix.T @ row, expected)
    ours = conv_transpose2d(row[None, None, :, None], kernel.reshape(1, 3, 1, 1), stride=(1, 2))
    np.testing.assert_array_equal(ours.ravel(), expected)
    # On six places the last one is seen by no window, and gets nothing.
    matrix = conv_matrix(kernel, 6, stride=2)
    np.testing.assert_array_equal(matrix.T @ row, [*expected, 0])


def test_matrix_of_a_kernel_that_does_not_fit():
    with pytest.raises(ValueError, match=r"\(3,\) does not fit a map of \(2,\)"):
        conv_matrix(jnp.ones(3), 2)


@st.composite
def convolutions(draw):
    """(size, kernel, stride, padding), each (rows, columns), where a window fits."""
    kernel, stride = (draw(st.tuples(*[st.integers(1, n)] * 2)) for n in (3, 3))
    padding = tuple(draw(st.integers(0, k - 1)) for k in kernel)
    size = tuple(draw(st.integers(max(1, k - 2 * p), 6)) for k, p in zip(kernel, padding))
    return size, kernel, stride, padding


@few
@given(convolutions())
def test_convolution_im2col_and_matrix_are_one(case):
    size, shape, stride, padding = case
    x, kernel = normal(0, 2, *size, 1), normal(1, *shape, 1, 1)

    @jax.jit
    def forms(x, kernel):
        matrix = conv_matrix(kernel[..., 0, 0], size, stride, padding)
        y = conv2d(x, kernel, stride=stride, padding=padding)
        columns = im2col(x, shape, stride, padding)
        flat = (x.reshape(2, -1) @ matrix.T).reshape(y.shape)
        return y, columns @ kernel.reshape(-1, 1), flat

    expected, *others = forms(x, kernel)
    for ours in others:
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@few
@given(convolutions())
def test_convolution_and_transposed_convolution_are_adjoint(case):
    size, shape, stride, padding = case
    x, kernel = normal(0, 2, *size, 3), normal(1, *shape, 3, 4)
    y = jax.jit(lambda x: conv2d(x, kernel, stride=stride, padding=padding))(x)
    g = normal(2, *y.shape)
    # Rows that no window reaches are what `output_padding` adds.
    left = [(n + 2 * p - k) % s for n, k, s, p in zip(size, shape, stride, padding)]
    options = {"stride": stride, "padding": padding, "output_padding": left}
    transposed = jax.jit(lambda g: conv_transpose2d(g, kernel, **options))(g)
    assert transposed.shape == x.shape
    np.testing.assert_allclose(jnp.vdot(y, g), jnp.vdot(x, transposed), rtol=1e-4, atol=1e-4)


def test_im2col_with_channels_and_dilation():
    x, kernel = normal(0, 2, 7, 6, 3), normal(1, 3, 2, 3, 4)
    expected = conv2d(x, kernel, stride=(1, 2), padding=2, dilation=(2, 3))
    columns = im2col(x, (3, 2), (1, 2), 2, (2, 3))
    np.testing.assert_allclose(columns @ kernel.reshape(-1, 4), expected, atol=1e-5)


@pytest.mark.parametrize("dilation", [2, 4])
def test_dilated_convolution_is_one_with_holes_in_its_kernel(dilation):
    x, kernel = normal(0, 2, 12, 13, 3), normal(1, 3, 3, 3, 4)
    side = 2 * dilation + 1
    spread = jnp.zeros((side, side, 3, 4)).at[::dilation, ::dilation].set(kernel)
    expected = conv2d(x, spread, padding=dilation)
    ours = conv2d(x, kernel, padding=dilation, dilation=dilation)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize("factor", [2, 8])
def test_bilinear_transposed_convolution_resizes_bilinearly(factor):
    # A kernel of twice the stride, half a stride cropped: all but the border, where the one sees
    # zeros outside the map and the other the border's pixels.
    x = normal(0, 2, 5, 4, 3)
    up = ConvTranspose2d(3, 2 * factor, factor, factor // 2, use_bias=False, kernel_init=bilinear)
    y = up.apply(up.init(jax.random.key(0), x), x)
    expected = resize(x, (5 * factor, 4 * factor))
    inner = (slice(None), slice(factor // 2, -factor // 2), slice(factor // 2, -factor // 2))
    np.testing.assert_allclose(y[inner], expected[inner], atol=1e-5)
    assert float(jnp.abs(y - expected).max()) > 0.1


def test_bilinear_kernel():
    # Long et al.'s for stride 2, and of an odd size; nothing crosses from channel to channel.
    kernel = bilinear(jax.random.key(0), (4, 4, 2, 2))
    line = np.array([0.25, 0.75, 0.75, 0.25])
    np.testing.assert_allclose(kernel[..., 1, 1], line[:, None] * line)
    np.testing.assert_array_equal(kernel[..., 0, 1], 0)
    odd = bilinear(jax.random.key(0), (3, 3, 1, 1))[1, :, 0, 0]
    np.testing.assert_allclose(odd, [0.5, 1, 0.5])


GRADIENTS = {
    "convolution": lambda x, k: conv2d(x, k, stride=2, padding=1),
    "dilated": lambda x, k: conv2d(x, k, padding=2, dilation=2),
    "transposed": lambda x, k: conv_transpose2d(x, k.swapaxes(2, 3), stride=2, padding=1),
    "im2col": lambda x, k: im2col(x, 3, 2, 1) @ k.reshape(-1, k.shape[3]),
    "matrix": lambda x, k: conv_matrix(k[..., 0, 0], 4, 2, 1) @ x[0, ..., 0].ravel(),
    "max pool": lambda x, k: max_pool2d(x, 2),
    "max pool by indices": lambda x, k: max_pool2d_with_indices(x, 3, 2, 1)[0],
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name):
    x, kernel = (np.asarray(normal(i, *s)) for i, s in enumerate(((1, 4, 4, 2), (3, 3, 2, 2))))
    with jax.enable_x64(True):
        arrays = x.astype(np.float64), kernel.astype(np.float64)
        check_grads(jax.jit(GRADIENTS[name]), arrays, 1, ["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("align_corners", [False, True])
def test_gradients_of_bilinear_resizing(align_corners):
    # It computes in float32 and is linear, so a long step is as right as a short one.
    form = jax.jit(lambda x: resize(x, (7, 9), align_corners=align_corners))
    check_grads(form, (normal(0, 1, 4, 5, 2),), 1, ["rev"], eps=1.0, atol=1e-4, rtol=1e-4)
