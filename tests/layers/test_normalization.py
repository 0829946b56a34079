"""Batch norm against hand numbers, its gradient against autodiff, and its accuracy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.layers.normalization import BatchNorm, LayerNorm, batch_norm, group_norm


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def plain(x, scale, bias, epsilon, axis_name=None):
    axes = tuple(range(x.ndim - 1))
    pmean = lambda v: v if axis_name is None else lax.pmean(v, axis_name)  # noqa: E731
    mean = pmean(x.mean(axes))
    variance = pmean(jnp.square(x - mean).mean(axes))
    return (x - mean) * lax.rsqrt(variance + epsilon) * scale + bias, mean, variance


def test_running_statistics_match_pytorch():
    # torch.nn.BatchNorm2d(1) on 1, 2, 4, 9: mean 4, variance 9.5 biased and 12.667 unbiased.
    x = jnp.array([1.0, 2, 4, 9]).reshape(2, 1, 2, 1)
    module = BatchNorm()
    variables = module.init(jax.random.key(0), x, train=True)
    assert variables["batch_stats"]["var"] == 1
    y, state = module.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.ravel(), [-0.973328, -0.648885, 0, 1.622213], atol=1e-5)
    np.testing.assert_allclose(state["batch_stats"]["mean"], [0.4], 1e-6)
    np.testing.assert_allclose(state["batch_stats"]["var"], [0.9 + 0.1 * 38 / 3], 1e-6)
    y = module.apply(variables | state, x, train=False)
    np.testing.assert_allclose(y.ravel(), [0.407619, 1.086983, 2.445713, 5.842536], 1e-5)


def test_statistics_of_some_rows():
    x, rows = normal(5, 3, 2), jnp.array([True, False, True, True, False])
    variables = BatchNorm().init(jax.random.key(0), x, train=True)

    def run(x, rows=None):
        def loss(x):
            y, state = BatchNorm().apply(variables, x, True, rows, mutable=["batch_stats"])
            kept = y if rows is None else y[np.flatnonzero(rows)]
            return jnp.sum(kept**3), (kept, state)

        return jax.value_and_grad(loss, has_aux=True)(x)

    (_, (y, state)), gradient = run(x, rows)
    (_, (expected, expected_state)), expected_gradient = run(x[rows])
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_allclose(gradient[rows], expected_gradient, atol=1e-5)
    assert not gradient[~rows].any()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6), state, expected_state)
    none = BatchNorm().apply(variables, x, True, jnp.zeros(5, bool), mutable=["batch_stats"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(none))


@pytest.mark.parametrize("shape", [(1, 6), (1, 1, 1, 6)])
def test_one_value_a_channel_has_no_variance(shape):
    class Pooling(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return BatchNorm(name="norm")(x, train)

    x = normal(*shape)
    variables = Pooling().init(jax.random.key(0), x, train=True)
    with pytest.raises(UserError, match=r"Batch normalisation 'norm' has one value a channel"):
        Pooling().apply(variables, x, train=True, mutable=["batch_stats"])
    assert Pooling().apply(variables, x, train=False).shape == shape
    both = jnp.concatenate([x, x + 1])
    Pooling().apply(variables, both, train=True, mutable=["batch_stats"])


def test_micro_batches_of_one_are_refused_before_the_first_step():
    """The pooling branch of DeepLab sees one value of each image."""
    network = models.create("deeplabv3_resnet50", 3, encoder_options={"depths": (1, 1, 1, 1)})
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x), image)

    def train(variables, image):
        return network.apply(variables, image, train=True, mutable=["batch_stats"])

    with pytest.raises(UserError, match=r"'classifier\.\S+' has one value a channel"):
        jax.eval_shape(train, variables, image)


@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (7, 6), (3, 5, 6)])
def test_gradient_is_that_of_the_definition(shape):
    arrays = 3 * normal(*shape) + 2, normal(6, seed=1), normal(6, seed=2)
    loss = lambda f, *a: jnp.sum(jnp.sin(f(*a, 1e-3)[0]))  # noqa: E731
    ours = jax.jit(jax.grad(lambda *a: loss(batch_norm, *a), (0, 1, 2)))(*arrays)
    theirs = jax.grad(lambda *a: loss(plain, *a), (0, 1, 2))(*arrays)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 1e-5)


def test_mapped_axis_is_part_of_the_batch():
    x, scale, bias = normal(4, 3, 5, 6), normal(6, seed=1), normal(6, seed=2)

    def loss(f, x, scale, bias):
        return jnp.sum(jnp.sin(f(x, scale, bias, 1e-3, "devices")[0]))

    def gradients(f):
        each = jax.grad(lambda *a: loss(f, *a), (0, 1, 2))
        return jax.vmap(each, in_axes=(0, None, None), axis_name="devices")(x, scale, bias)

    for a, b in zip(gradients(batch_norm), gradients(plain), strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 1e-5)
    y, mean, _ = jax.vmap(
        lambda x: batch_norm(x, scale, bias, 1e-3, "devices"), axis_name="devices"
    )(x)
    np.testing.assert_allclose(y, batch_norm(x, scale, bias, 1e-3)[0], 1e-4, 1e-5)
    np.testing.assert_allclose(mean[0], x.mean((0, 1, 2)), 1e-4, 1e-5)
    module = BatchNorm(axis_name="devices")
    variables = module.init(jax.random.key(0), x[0], train=True)
    _, state = jax.vmap(
        lambda x: module.apply(variables, x, train=True, mutable=["batch_stats"]),
        axis_name="devices",
    )(x)
    unbiased = jnp.var(x, (0, 1, 2), ddof=1)
    np.testing.assert_allclose(state["batch_stats"]["var"][0], 0.9 + 0.1 * unbiased, 1e-5)


def test_shard_map_over_one_device():
    x, scale, bias = normal(4, 6), normal(6, seed=1), normal(6, seed=2)
    mesh = Mesh(np.array(jax.devices()[:1]), ("devices",))
    batch, whole = PartitionSpec("devices"), PartitionSpec()
    mapped = jax.shard_map(
        lambda *a: batch_norm(*a, 1e-3, "devices")[0],
        mesh=mesh,
        in_specs=(batch, whole, whole),
        out_specs=batch,
    )
    np.testing.assert_allclose(mapped(x, scale, bias), plain(x, scale, bias, 1e-3)[0], 1e-4, 1e-5)
    loss = lambda f: lambda *a: jnp.sum(jnp.sin(f(*a)))  # noqa: E731
    ours = jax.grad(loss(mapped), (0, 1, 2))(x, scale, bias)
    theirs = jax.grad(loss(lambda *a: plain(*a, 1e-3)[0]), (0, 1, 2))(x, scale, bias)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 1e-5)


def test_a_large_mean_costs_no_accuracy():
    exact = np.random.default_rng(0).normal(1000, 1, (8, 16, 16, 4))
    x = jnp.asarray(exact, jnp.float32)
    exact = np.asarray(x, np.float64)
    y, mean, variance = jax.jit(batch_norm, static_argnums=(3, 4))(
        x, jnp.ones(4), jnp.zeros(4), 0.0, None
    )
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    expected = (exact - exact.mean((0, 1, 2))) / exact.std((0, 1, 2))
    np.testing.assert_allclose(y, expected, atol=2e-4)
    naive = jnp.mean(x * x, (0, 1, 2)) - jnp.square(x.mean((0, 1, 2)))
    assert np.abs(naive - exact.var((0, 1, 2))).max() > 1e-2


def test_bfloat16_has_float32_statistics():
    x = (normal(8, 16, 16, 4) + 30).astype(jnp.bfloat16)
    module = BatchNorm(use_scale=False, use_bias=False)
    variables = module.init(jax.random.key(0), x, train=True)
    assert "params" not in variables
    y, state = module.apply(variables, x, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert state["batch_stats"]["mean"].dtype == jnp.float32
    exact = np.asarray(x, np.float64).mean((0, 1, 2))
    np.testing.assert_allclose(state["batch_stats"]["mean"], 0.1 * exact, 1e-5)
    assert module.apply(variables, x, train=False).dtype == jnp.bfloat16
    assert (
        BatchNorm(dtype=jnp.float32, use_bias=False)
        .init_with_output(jax.random.key(0), x, train=True)[0]
        .dtype
        == jnp.float32
    )


def test_layer_norm():
    x = normal(3, 5, 8) + 1000
    y, variables = LayerNorm().init_with_output(jax.random.key(0), x)
    assert set(variables["params"]) == {"scale", "bias"}
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(
        exact.var(-1, keepdims=True) + 1e-6
    )
    np.testing.assert_allclose(y, expected, atol=1e-3)
    half = LayerNorm(dtype=jnp.bfloat16).apply(variables, normal(3, 8).astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


def by_groups(x, scale, bias, groups, epsilon):
    """Group norm as it is defined."""
    parts = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    mean, variance = parts.mean((1, 3), keepdims=True), parts.var((1, 3), keepdims=True)
    return ((parts - mean) / jnp.sqrt(variance + epsilon)).reshape(x.shape) * scale + bias


@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 3, 4, 6), 3), ((2, 3, 4, 6), 6), ((3, 6), 1), ((2, 2, 3, 2, 6), 2)]
)
def test_group_norm(shape, groups):
    x, (scale, bias) = normal(*shape) * 3 - 1, normal(2, 6, seed=1)
    g = normal(*shape, seed=2)

    def both(function):
        y, pull = jax.vjp(lambda *arrays: function(*arrays, groups, 1e-5), x, scale, bias)
        return y, pull(g)

    close = lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4)  # noqa: E731
    jax.tree.map(close, both(group_norm), both(by_groups))


def test_a_large_mean_costs_group_norm_no_accuracy():
    x = normal(2, 8, 8, 4)
    scale, bias = jnp.ones(4), jnp.zeros(4)
    expected = group_norm(x, scale, bias, 2, 1e-5)
    far = group_norm(x + 1000, scale, bias, 2, 1e-5)
    np.testing.assert_allclose(far, expected, atol=1e-3)  # 1000 has three digits fewer
    half = group_norm((x + 4).astype(jnp.bfloat16), scale, bias, 2, 1e-5)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), expected, atol=0.1)


def test_channels_that_do_not_divide_into_groups():
    with pytest.raises(UserError, match="6 channels cannot be divided into 4 groups"):
        group_norm(normal(1, 2, 2, 6), jnp.ones(6), jnp.zeros(6), 4, 1e-5)
