"""Every form of every convolution against `lax`, in values and in gradients."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads

from jaxvision.ops import convolution
from jaxvision.ops.convolution import conv2d, conv_transpose2d
from jaxvision.ops.forms import swapped_in_memory
from jaxvision.ops.windows import Window, overlap_add, same_padding, window_taps

few = settings(max_examples=5, deadline=None, derandomize=True)


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def assert_same(forms, *arrays, tolerance=1e-4):
    """All forms agree in value and in the gradient of every array."""

    def value_and_gradients(form):
        y, pull = jax.vjp(form, *arrays)
        return y, pull(normal(*y.shape, seed=9, dtype=y.dtype))

    expected, *others = (jax.jit(partial(value_and_gradients, form))() for form in forms)
    for other in others:
        for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(expected), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(
                np.asarray(a, np.float32), np.asarray(b, np.float32), tolerance, tolerance
            )


@st.composite
def windows(draw, max_kernel=4, max_stride=3, max_dilation=2):
    """A map's size and a window that fits it."""
    pair = lambda low, high: tuple(draw(st.tuples(*[st.integers(low, high)] * 2)))  # noqa: E731
    kernel, stride, dilation = pair(1, max_kernel), pair(1, max_stride), pair(1, max_dilation)
    padding = pair(0, 2), pair(0, 2)
    fits = [
        max((k - 1) * d + 1 - sum(p), 1) for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    size = tuple(n + draw(st.integers(0, 5)) for n in fits)
    return size, Window(kernel, stride, dilation, padding)


@few
@given(windows())
def test_overlap_add_is_the_transpose_of_window_taps(case):
    size, window = case
    x = normal(2, *size, 3)

    @jax.jit
    def both(x):
        taps, pull = jax.vjp(lambda x: jnp.stack(window_taps(x, window), 3), x)
        g = jnp.sin(jnp.arange(taps.size, dtype=jnp.float32)).reshape(taps.shape)
        return overlap_add(lambda n, g: g[..., n, :], [g], window, size), pull(g)[0]

    np.testing.assert_allclose(*both(x), 1e-5, 1e-5)


@few
@given(windows())
def test_depthwise_forms_agree(case):
    size, window = case
    x, kernel = normal(2, *size, 3), normal(*window.size, 1, 3, seed=1)
    forms = convolution._plain, convolution._depthwise_shift, convolution._depthwise
    assert_same([partial(form, window) for form in forms], x, kernel)


@few
@given(windows(), st.sampled_from([(2, 4, 6), (3, 3, 6), (4, 8, 4), (2, 6, 2)]))
def test_grouped_forms_agree(case, channels):
    (size, window), (groups, inputs, outputs) = case, channels
    x, kernel = normal(2, *size, inputs), normal(*window.size, inputs // groups, outputs, seed=1)
    forms = (
        convolution._plain,
        convolution._grouped_products,
        convolution._grouped_merged,
        convolution._grouped,
    )
    assert_same([partial(form, window) for form in forms], x, kernel)


@few
@given(windows(), st.sampled_from([1, 2, 3, 4, 5, 16, 19]))
def test_gradients_on_cpus_agree(case, batch):
    # For the kernel's gradient fewer than four samples are cut into strips, and many into parts.
    size, window = case
    x, kernel = normal(batch, *size, 3), normal(*window.size, 3, 4, seed=1)
    forms = convolution._plain, convolution._on_cpu, convolution._whole
    assert_same([partial(form, window) for form in forms], x, kernel)


@pytest.mark.parametrize("shape", [(3, 3, 5, 256), (1, 2, 256, 512), (3, 1, 8, 300), (2, 2, 4, 6)])
def test_transposed_kernels(shape):
    kernel = normal(*shape)
    expected = np.asarray(kernel).swapaxes(2, 3)
    np.testing.assert_array_equal(jax.jit(swapped_in_memory)(kernel), expected)


@few
@given(windows())
def test_im2col_agrees(case):
    size, window = case
    x, kernel = normal(2, *size, 3), normal(*window.size, 3, 4, seed=1)
    forms = convolution._plain, convolution._im2col, convolution._small
    assert_same([partial(form, window) for form in forms], x, kernel)


@few
@given(st.tuples(*[st.integers(1, 3)] * 4))
def test_patchify_agrees(case):
    rows, columns, down, across = case
    window = Window((rows, columns), (rows, columns))
    x, kernel = normal(2, rows * down, columns * across, 3), normal(rows, columns, 3, 4, seed=1)
    forms = convolution._plain, convolution._patchify_matmul, convolution._patchify
    assert_same([partial(form, window) for form in forms], x, kernel)


def torch_transpose(x, kernel, stride, padding, output_padding):
    """ConvTranspose2d by its definition: each input place adds its kernel to the output."""
    (batch, height, width, _), (rows, columns, features, _) = x.shape, kernel.shape
    full = np.zeros(
        (
            batch,
            (height - 1) * stride + rows + output_padding,
            (width - 1) * stride + columns + output_padding,
            features,
        )
    )
    for i in range(height):
        for j in range(width):
            patch = np.einsum("bc,hwoc->bhwo", x[:, i, j], kernel)
            full[:, i * stride : i * stride + rows, j * stride : j * stride + columns] += patch
    return full[:, padding : full.shape[1] - padding, padding : full.shape[2] - padding]


@few
@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    data=st.data(),
)
def test_transposed_forms_agree(size, kernel, stride, padding, data):
    kernel = tuple(max(k, 2 * padding + 1) for k in kernel)
    extra = data.draw(st.integers(0, stride - 1))
    x, weights = normal(2, *size, 3), normal(*kernel, 4, 3, seed=1)
    window = Window(kernel, (stride, stride), (1, 1), ((padding, padding - extra),) * 2)
    forms = (
        convolution._transpose_plain,
        convolution._transpose_subpixel,
        convolution._transpose,
    )
    assert_same([partial(form, window) for form in forms], x, weights)
    ours = conv_transpose2d(x, weights, stride=stride, padding=padding, output_padding=extra)
    expected = torch_transpose(np.asarray(x), np.asarray(weights), stride, padding, extra)
    np.testing.assert_allclose(ours, expected, 1e-4, 1e-4)


def test_transposed_is_the_gradient_of_conv2d():
    x, g, kernel = normal(2, 9, 7, 3), normal(2, 5, 4, 5, seed=1), normal(3, 3, 3, 5, seed=2)
    pull = jax.vjp(lambda x: conv2d(x, kernel, stride=2, padding=1), x)[1]
    ours = conv_transpose2d(g, kernel, stride=2, padding=1)
    np.testing.assert_allclose(ours, pull(g)[0], 1e-4, 1e-4)


def test_transposed_matches_pytorch():
    # torch.nn.functional.conv_transpose2d(x, arange(9), stride=2, padding=1, output_padding=1)
    x = jnp.array([[1.0, 2], [3, -1]])[None, :, :, None]
    kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)
    expected = [[4, 11, 8, 10], [10, 26, 13, 14], [12, 12, -4, -5], [21, 18, -7, -8]]
    y = conv_transpose2d(x, kernel, stride=2, padding=1, output_padding=1)
    np.testing.assert_allclose(y[0, :, :, 0], expected)


CASES = {
    "plain": ((2, 7, 9, 4), (3, 3, 4, 6), {"padding": 1}),
    "plain strided": ((2, 8, 11, 4), (3, 3, 4, 6), {"stride": 2, "padding": 1}),
    "asymmetric": ((2, 7, 9, 4), (3, 3, 4, 6), {"padding": ((0, 1), (2, 1)), "stride": (1, 2)}),
    "1x1": ((2, 5, 6, 4), (1, 1, 4, 6), {}),
    "1x1 strided": ((2, 5, 6, 4), (1, 1, 4, 6), {"stride": 2}),
    "1x1 padded": ((2, 5, 6, 4), (1, 1, 4, 6), {"padding": 1}),
    "depthwise": ((2, 5, 8, 4), (3, 3, 1, 4), {"padding": 1, "groups": 4}),
    "depthwise 5x5": ((2, 9, 8, 4), (5, 5, 1, 4), {"padding": 2, "stride": 2, "groups": 4}),
    "depthwise 7x7": ((2, 9, 8, 4), (7, 7, 1, 4), {"padding": 3, "groups": 4}),
    "depthwise dilated": ((2, 9, 8, 4), (3, 3, 1, 4), {"padding": 2, "dilation": 2, "groups": 4}),
    "depthwise x2": ((2, 5, 8, 4), (3, 3, 1, 8), {"padding": 1, "groups": 4}),
    "grouped": ((2, 5, 8, 4), (3, 3, 2, 6), {"padding": 1, "stride": 2, "groups": 2}),
    "tiny": ((2, 2, 2, 4), (3, 3, 4, 6), {"padding": 1}),
    "tiny strided": ((2, 4, 3, 4), (3, 3, 4, 6), {"padding": 1, "stride": 2}),
    "single place": ((2, 1, 1, 4), (3, 3, 4, 6), {"padding": 1}),
    "growing": ((2, 5, 6, 4), (4, 4, 4, 6), {"padding": 2}),
    "patches": ((2, 6, 8, 4), (3, 2, 4, 6), {"stride": (3, 2)}),
    "patches with a rest": ((2, 7, 8, 4), (3, 3, 4, 6), {"stride": 3}),
}


def reference(x, kernel, stride=1, padding=0, dilation=1, groups=1):
    two = lambda v: (v, v) if isinstance(v, int) else v  # noqa: E731
    return lax.conv_general_dilated(
        x,
        kernel,
        two(stride),
        [two(p) for p in two(padding)],
        rhs_dilation=two(dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize("name", CASES)
def test_conv2d_is_the_plain_convolution(name):
    shape, kernel_shape, options = CASES[name]
    x, kernel = normal(*shape), normal(*kernel_shape, seed=1)
    assert_same([partial(reference, **options), partial(conv2d, **options)], x, kernel)


@settings(few, max_examples=20)
@given(windows(), st.tuples(*[st.integers(0, 9)] * 4), st.sampled_from([1, 3]))
def test_taps_that_see_only_padding_do_not_matter(case, more, groups):
    size, window = case
    (top, bottom), (left, right) = window.padding
    padding = ((top + more[0], bottom + more[1]), (left + more[2], right + more[3]))
    options = {
        "stride": window.stride,
        "padding": padding,
        "dilation": tuple(3 * n - 2 for n in window.dilation),
        "groups": groups,
    }
    rows, columns = (
        n + sum(p) - (k - 1) * d
        for n, k, d, p in zip(size, window.size, options["dilation"], padding, strict=True)
    )
    assume(rows > 0 and columns > 0)
    x, kernel = normal(2, *size, 3), normal(*window.size, 3 // groups, 3, seed=1)
    assert_same([partial(reference, **options), partial(conv2d, **options)], x, kernel)


def test_a_kernel_dilated_past_the_map_is_its_middle():
    window = Window((3, 3), dilation=(12, 12), padding=((12, 12), (12, 12)))
    kernel = normal(3, 3, 1, 5)
    found, middle = convolution._without_idle_taps(window, (8, 9), kernel)
    assert found == Window((1, 1), dilation=(12, 12))
    np.testing.assert_array_equal(middle, kernel[1:2, 1:2])
    # One row more, and the outer rows see it.
    found, _ = convolution._without_idle_taps(window, (13, 9), kernel)
    assert (found.size, found.padding) == ((3, 1), ((12, 12), (0, 0)))


@pytest.mark.parametrize("name", ["depthwise 5x5", "grouped", "tiny", "patches", "1x1 strided"])
def test_conv2d_in_bfloat16(name):
    shape, kernel_shape, options = CASES[name]
    x, kernel = normal(*shape, dtype=jnp.bfloat16), normal(*kernel_shape, dtype=jnp.bfloat16)
    forms = [partial(reference, **options), partial(conv2d, **options)]
    assert_same(forms, x, kernel, tolerance=6e-2)


@pytest.mark.parametrize("name", ["depthwise 5x5", "grouped", "tiny"])
def test_conv2d_under_transformations(name):
    shape, kernel_shape, options = CASES[name]
    x, kernel = normal(3, *shape), normal(*kernel_shape, seed=1)
    conv = partial(conv2d, **options)
    one_by_one = jnp.stack([conv(sample, kernel) for sample in x])
    np.testing.assert_allclose(jax.vmap(conv, in_axes=(0, None))(x, kernel), one_by_one, 1e-5, 1e-5)
    loss = jax.jit(lambda x, kernel: jnp.sum(jnp.sin(conv(x, kernel))))
    ours = jax.jit(jax.grad(jax.checkpoint(loss), (0, 1)))(x[0], kernel)
    for a, b in zip(ours, jax.jit(jax.grad(loss, (0, 1)))(x[0], kernel), strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 1e-4)
    check_grads(loss, (x[0], kernel), order=1, modes=["rev"], rtol=0.05, atol=0.05)


def test_second_derivatives():
    x, kernel = normal(1, 4, 4, 2), normal(3, 3, 1, 2, seed=1)
    forms = (partial(conv2d, padding=1, groups=2), partial(reference, padding=1, groups=2))

    def penalty(kernel, conv):
        return jnp.sum(jax.grad(lambda x: jnp.sum(conv(x, kernel) ** 3))(x) ** 2)

    ours, theirs = (jax.jit(jax.grad(partial(penalty, conv=conv)))(kernel) for conv in forms)
    np.testing.assert_allclose(ours, theirs, 1e-3)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="does not fit 4 channels"):
        conv2d(normal(1, 4, 4, 4), normal(3, 3, 3, 8))
    with pytest.raises(ValueError, match="does not fit 4 channels"):
        conv_transpose2d(normal(1, 4, 4, 4), normal(2, 2, 4, 3), stride=2)


def test_only_one_form_is_lowered():
    x, kernel = normal(1, 6, 6, 4), normal(3, 3, 1, 4)
    conv = partial(conv2d, padding=1, groups=4)
    grad = jax.jit(jax.grad(lambda x, kernel: jnp.sum(conv(x, kernel) ** 2), (0, 1)))
    counts = {
        platform: grad.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert "stablehlo.convolution" not in counts["cpu"]
    assert "stablehlo.convolution" in counts["cuda"]
    assert "stablehlo.convolution" in counts["tpu"]
    assert "stablehlo.reduce" not in counts["tpu"].replace("stablehlo.reduce_window", "")


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from jaxvision.layers.normalization import BatchNorm
from jaxvision.ops.convolution import conv2d, conv_transpose2d
from jaxvision.ops.pooling import avg_pool2d, max_pool2d
from jaxvision.ops.resize import resize

assert jax.device_count() == 8
draw = np.random.default_rng(0).normal
x = jnp.asarray(draw(size=(16, 7, 6, 4)), jnp.float32)
params = {
    name: jnp.asarray(0.2 * draw(size=shape), jnp.float32)
    for name, shape in {
        "dw": (3, 3, 1, 4), "dw2": (3, 3, 1, 4), "grouped": (3, 3, 2, 4), "tiny": (3, 3, 4, 4),
        "up": (4, 4, 4, 4),
    }.items()
}
norm = BatchNorm()
variables = norm.init(jax.random.key(0), x, train=True)

def loss(params, x):
    y = conv2d(x, params["dw"], padding=1, groups=4)
    y, _ = norm.apply(variables, y, train=True, mutable=["batch_stats"])
    y = max_pool2d(y, 3, 1, 1)
    y = conv2d(y, params["dw2"], padding=1, stride=2, groups=4)
    y = conv2d(y, params["grouped"], padding=1, groups=2)
    y = avg_pool2d(y, 3, 2, 1)
    y = conv2d(y, params["tiny"], padding=1)
    y = conv_transpose2d(y, params["up"], stride=2, padding=1)
    return jnp.sum(jnp.sin(resize(y, (7, 6))))

# Inside shard_map the kernel, which all shards share, gets the sum of the shards' gradients.
each = jax.shard_map(
    lambda x, k: conv2d(x, k, padding=1, groups=4),
    mesh=Mesh(np.array(jax.devices()), ("batch",)), in_specs=(P("batch"), P()),
    out_specs=P("batch"),
)
mapped, whole = (
    jax.jit(jax.grad(lambda x, k: jnp.sum(jnp.sin(f(x, k))), (0, 1)))(x, params["dw"])
    for f in (each, lambda x, k: conv2d(x, k, padding=1, groups=4))
)
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), mapped, whole)

step = jax.jit(jax.value_and_grad(loss, (0, 1)))
one = step(params, x)
mesh = Mesh(np.array(jax.devices()), ("batch",))
shard = jax.device_put(x, NamedSharding(mesh, P("batch")))
eight = step(jax.device_put(params, NamedSharding(mesh, P())), shard)
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), one, eight)
print("same")
"""


def test_eight_devices_compute_the_same():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "same", done.stderr


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 3, 4, 5])
def test_same_padding_is_that_of_xla(window, stride):
    for size in ((1, 2), (6, 7), (11, 4)):
        expected = lax.padtype_to_pads(size, (window, window), (stride, stride), "SAME")
        assert same_padding(size, window, stride) == tuple(expected)
