"""The modules' parameters, defaults and dtypes; the arithmetic is tested with the ops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.layers.convolution import Conv2d, ConvTranspose2d
from jaxvision.ops.convolution import conv2d, conv_transpose2d

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 8, 4)), jnp.float32)


def test_conv_parameters_and_default_padding():
    module = Conv2d(6, (3, 5), dilation=2, groups=2)
    y, variables = module.init_with_output(jax.random.key(0), X)
    params = variables["params"]
    assert {name: p.shape for name, p in params.items()} == {"kernel": (3, 5, 2, 6), "bias": (6,)}
    assert y.shape == (2, 9, 8, 6)
    params["bias"] = jnp.arange(6.0)
    expected = conv2d(X, params["kernel"], padding=(2, 4), dilation=2, groups=2) + jnp.arange(6.0)
    np.testing.assert_allclose(module.apply({"params": params}, X), expected, 1e-5, 1e-5)


@pytest.mark.parametrize(("size", "stride", "out"), [(3, 2, 5), (7, 2, 5), (1, 2, 5), (4, 2, 4)])
def test_default_padding_is_that_of_the_papers(size, stride, out):
    y, _ = Conv2d(3, size, stride).init_with_output(jax.random.key(0), X)
    assert y.shape[1] == out


def test_he_normal_keeps_the_variance_of_depthwise_too():
    for groups in (1, 64):
        module = Conv2d(64, 3, groups=groups, use_bias=False)
        kernel = module.init(jax.random.key(0), jnp.ones((1, 4, 4, 64)))["params"]["kernel"]
        np.testing.assert_allclose(jnp.var(kernel), 2 / (9 * 64 / groups), rtol=0.15)
    module = ConvTranspose2d(16, 3, 2)
    kernel = module.init(jax.random.key(0), jnp.ones((1, 4, 4, 64)))["params"]["kernel"]
    np.testing.assert_allclose(jnp.var(kernel), 2 / (9 * 64), rtol=0.15)


def test_transposed_parameters():
    module = ConvTranspose2d(6, 4, 2, padding=1)
    y, variables = module.init_with_output(jax.random.key(0), X)
    params = variables["params"]
    assert {name: p.shape for name, p in params.items()} == {"kernel": (4, 4, 6, 4), "bias": (6,)}
    assert y.shape == (2, 18, 16, 6)
    expected = conv_transpose2d(X, params["kernel"], stride=2, padding=1)
    np.testing.assert_allclose(y, expected, 1e-5, 1e-5)


@pytest.mark.parametrize("module", [Conv2d(6, dtype=jnp.bfloat16), ConvTranspose2d(6, 2, 2)])
def test_dtypes(module):
    y, variables = module.init_with_output(jax.random.key(0), X.astype(jnp.bfloat16))
    assert y.dtype == (module.dtype or jnp.float32)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))
