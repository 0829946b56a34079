"""Winograd's form of 3x3 convolutions against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxvision.layers.convolution import Conv2d
from jaxvision.ops import winograd
from jaxvision.ops.convolution import conv2d
from jaxvision.ops.forms import portable


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def plain(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("cache", [2**21, 600])  # the latter cuts the batch into parts
@pytest.mark.parametrize("shape", [(4, 6, 4, 3, 5), (1, 2, 2, 4, 2), (3, 8, 2, 1, 1)])
def test_values_and_gradients(shape, cache, monkeypatch):
    monkeypatch.setattr(winograd, "_CACHE", cache)
    batch, height, width, channels, features = shape
    x, kernel = normal(batch, height, width, channels), normal(3, 3, channels, features, seed=1)
    g = normal(batch, height, width, features, seed=2)
    expected, pull = jax.vjp(plain, x, kernel)
    np.testing.assert_allclose(jax.jit(winograd.conv3x3)(x, kernel), expected, 1e-4, 1e-4)
    np.testing.assert_allclose(jax.jit(winograd.kernel_gradient)(x, g), pull(g)[1], 1e-4, 1e-4)


@pytest.mark.parametrize("channels", [32, 128])  # whose kernels' gradients have two forms
def test_as_a_convolution(channels):
    x, kernel = normal(2, 16, 8, channels), normal(3, 3, channels, channels, seed=1) / channels
    assert winograd.suits(x, channels)

    def both(winograd):
        def loss(x, kernel):
            return jnp.square(conv2d(x, kernel, padding=1, winograd=winograd)).sum()

        return jax.jit(jax.value_and_grad(loss, (0, 1)))(x, kernel)

    ours, expected = both(True), both(False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4), ours, expected)


def test_it_is_only_for_what_it_suits():
    fits = normal(2, 16, 8, 32)
    assert winograd.suits(fits, 32)
    assert not winograd.suits(fits, 31)
    assert not winograd.suits(fits[:, :15], 32)
    assert not winograd.suits(fits[:1, :8], 32)
    assert not winograd.suits(fits.astype(jnp.bfloat16), 32)
    for options in ({"stride": 2}, {"dilation": 2, "padding": 2}, {"padding": 0}):
        kernel, given = normal(3, 3, 32, 32, seed=1), {"padding": 1, **options}
        ours = conv2d(fits, kernel, winograd=True, **given)
        np.testing.assert_array_equal(ours, conv2d(fits, kernel, **given))


def test_a_layer_of_any_batch_is_exported():
    layer = Conv2d(32, winograd=True)
    x = normal(3, 16, 16, 32)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    spec = jax.ShapeDtypeStruct(export.symbolic_shape("b, 16, 16, 32"), jnp.float32)
    with portable():
        exported = export.export(jax.jit(lambda x: layer.apply(variables, x)))(spec)
    for batch in (1, 3):
        expected = Conv2d(32).apply(variables, x[:batch])
        np.testing.assert_allclose(exported.call(x[:batch]), expected, 1e-4, 1e-4)
