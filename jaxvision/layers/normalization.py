"""Normalisation with statistics in float32, whatever the activations are in."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxvision.errors import UserError
from jaxvision.layers.parameters import parameter
from jaxvision.ops.forms import (
    accumulable,
    channel_sum,
    channel_sums,
    sums,
    vary_alike,
    weighted_sum,
)


def _means(axis_name: str | None, *arrays: Array) -> list[Array]:
    count = arrays[0].size // arrays[0].shape[-1]
    means = [total / count for total in channel_sums(*arrays)]
    return means if axis_name is None else lax.pmean(means, axis_name)


def batch_norm(
    x: Float[Array, "*b c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
    axis_name: str | None = None,
) -> tuple[Float[Array, "*b c"], Float[Array, " c"], Float[Array, " c"]]:
    """Normalises each channel by its own mean and variance.

    The variance is the mean of the squared deviations, not a difference of two moments, so it is
    accurate when the mean is large. What that costs is won back by the gradient, which is written
    by hand: it needs two sums over the batch, and keeps `x` in its own dtype for the backward pass.

    Args:
      x: activations, channels last.
      scale: what the normalised activations are multiplied by.
      bias: what is then added.
      epsilon: added to the variance.
      axis_name: of the mapped axis (`pmap`, `vmap`, `shard_map`) to take the statistics over too.

    Returns:
      The output in the dtype of `x`; the mean and the biased variance in float32. The statistics
      are for running averages: as outputs of their own they have no gradient.
    """
    y, mean, variance = _batch_norm(*vary_alike(x, scale, bias), epsilon, axis_name)
    return y, lax.stop_gradient(mean), lax.stop_gradient(variance)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _batch_norm(x, scale, bias, epsilon, axis_name):
    return _batch_norm_forward(x, scale, bias, epsilon, axis_name)[0]


def _batch_norm_forward(x, scale, bias, epsilon, axis_name):
    x32 = x.astype(jnp.float32)
    (mean,) = _means(axis_name, x32)
    (variance,) = _means(axis_name, jnp.square(x32 - mean))
    inverse = lax.rsqrt(variance + epsilon)
    y = (x32 - mean) * (inverse * scale) + bias
    return (y.astype(x.dtype), mean, variance), (x, scale, mean, inverse)


def _batch_norm_backward(epsilon, axis_name, residuals, cotangents):
    x, scale, mean, inverse = residuals
    g, centred = cotangents[0].astype(jnp.float32), x.astype(jnp.float32) - mean
    g_bar, g_slope = _means(None, g, g * centred)
    count = x.size // x.shape[-1]
    dscale, dbias = g_slope * inverse * count, g_bar * count
    if axis_name is not None:
        g_bar, g_slope = lax.pmean((g_bar, g_slope), axis_name)
    slope = jnp.square(inverse) * g_slope
    dx = scale * inverse * (g - g_bar - centred * slope)
    return dx.astype(x.dtype), dscale, dbias


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def batch_norm_of_rows(
    x: Float[Array, "n *b c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
    rows: Bool[Array, " n"],
) -> tuple[Float[Array, "n *b c"], Float[Array, " c"], Float[Array, " c"]]:
    """`batch_norm`, whose statistics are those of some rows alone."""
    counted = rows.reshape(-1, *(1,) * (x.ndim - 1))
    axes, x32 = tuple(range(x.ndim - 1)), x.astype(jnp.float32)
    count = jnp.maximum(rows.sum(), 1) * (x[0].size // x.shape[-1])

    def mean_of(values: Array) -> Array:
        return jnp.where(counted, values, 0).sum(axes) / count

    mean = mean_of(x32)
    variance = mean_of(jnp.square(x32 - mean))
    y = (x32 - mean) * (lax.rsqrt(variance + epsilon) * scale) + bias
    return y.astype(x.dtype), lax.stop_gradient(mean), lax.stop_gradient(variance)


class BatchNorm(nn.Module):
    """Batch normalisation as in PyTorch; channels last.

    Ioffe and Szegedy, "Batch Normalization", 2015, https://arxiv.org/abs/1502.03167

    Parameters `scale` and `bias`; collection `batch_stats` with the running `mean` and `var`. As in
    PyTorch, and unlike in Flax, the running variance is of the unbiased estimate (n - 1), while the
    batch itself is normalised by the biased one.

    Attributes:
      momentum: the fraction of the running statistics that stays (PyTorch's momentum is the rest).
      epsilon: added to the variance.
      dtype: of the output; None is the input's.
      use_scale: whether there is a `scale`.
      use_bias: whether there is a `bias`.
      axis_name: of the mapped axis to take the statistics over too. Under `jit` with a sharded
        batch none is needed: the statistics are those of the whole batch.
      scale_init: of `scale`; zeros, in the last block of a residual branch, start as an identity.
      bias_init: of `bias`.

    Raises:
      UserError: training on one value a channel, whose variance is none. PyTorch refuses it too.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = None
    use_scale: bool = True
    use_bias: bool = True
    axis_name: str | None = None
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    bias_init: nn.initializers.Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b c"], train: bool, rows: Bool[Array, " n"] | None = None
    ) -> Float[Array, "*b c"]:
        """Normalises; in training by the statistics of all, or of some of the first axis."""
        shape = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale, bias = jnp.ones(shape, jnp.float32), jnp.zeros(shape, jnp.float32)
        if self.use_scale:
            scale = parameter(self, "scale", self.scale_init, shape, jnp.float32)
        if self.use_bias:
            bias = parameter(self, "bias", self.bias_init, shape, jnp.float32)
        x = x if self.dtype is None else x.astype(self.dtype)
        if not train:
            gain = scale * lax.rsqrt(running_var.value + self.epsilon)
            return ((x - running_mean.value) * gain + bias).astype(x.dtype)
        # While the parameters are made there is no mapped axis yet.
        axis_name = None if self.is_initializing() else self.axis_name
        count = x.size // x.shape[-1]
        if axis_name is not None:
            count *= lax.axis_size(axis_name)
        if count == 1 and not self.is_initializing():
            raise UserError(
                f"Batch normalisation {'.'.join(self.path)!r} has one value a channel to take "
                "statistics of; in training it needs two or more. Take a larger batch (of which "
                "optimizer.accumulate makes smaller ones) or larger images."
            )
        if rows is None:
            y, mean, var = batch_norm(x, scale, bias, self.epsilon, axis_name)
            unbiased = var * (count / max(count - 1, 1))
        else:
            y, mean, var = batch_norm_of_rows(x, scale, bias, self.epsilon, rows)
            counted = jnp.maximum(rows.sum(), 1) * (count // len(rows))
            unbiased = var * (counted / jnp.maximum(counted - 1, 1))
        if not self.is_initializing():
            keep = self.momentum
            running_mean.value = keep * running_mean.value + (1 - keep) * mean
            running_var.value = keep * running_var.value + (1 - keep) * unbiased
        return y


@contextlib.contextmanager
def frozen_statistics(patterns: Sequence[str]) -> Iterator[None]:
    """Batch norms of the networks applied inside use and keep their running statistics.

    In training too, as those of a PyTorch module in `eval()`; scale and bias still learn.

    Args:
      patterns: regular expressions, searched in paths of batch norms like `layer1_0/bn1`.
    """

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if isinstance(module, BatchNorm) and context.method_name == "__call__":
            path = "/".join(module.path)
            if any(re.search(pattern, path) for pattern in patterns):
                return call(args[0], train=False)
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept) if patterns else contextlib.nullcontext():
        yield


def _row_mean(x: Array, weights: Array) -> Array:
    return weighted_sum(x, weights)[..., None] / x.shape[-1]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm(x, scale, bias, epsilon):
    return _layer_norm_forward(x, scale, bias, epsilon)[0]


def _layer_norm_forward(x, scale, bias, epsilon):
    x32 = x.astype(jnp.float32)
    ones = jnp.ones_like(scale)
    mean = _row_mean(x32, ones)
    inverse = lax.rsqrt(_row_mean(jnp.square(x32 - mean), ones) + epsilon)
    y = (x32 - mean) * inverse * scale + bias
    return y.astype(x.dtype), (x, scale, mean, inverse)


def _layer_norm_backward(epsilon, residuals, g):
    x, scale, mean, inverse = residuals
    g, normal = g.astype(jnp.float32), (x.astype(jnp.float32) - mean) * inverse
    slope = g * normal
    dx = inverse * (g * scale - _row_mean(g, scale) - normal * _row_mean(slope, scale))
    return dx.astype(x.dtype), channel_sum(slope), channel_sum(g)


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


def layer_norm(
    x: Float[Array, "*b c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
) -> Float[Array, "*b c"]:
    """Normalises the channels of each place by their mean and variance.

    Ba et al., "Layer Normalization", 2016, https://arxiv.org/abs/1607.06450. Statistics are in
    float32 and the variance is of the deviations. The gradient is written by hand; it keeps `x` in
    its own dtype and two numbers a place.

    Args:
      x: activations, channels last.
      scale: what the normalised activations are multiplied by.
      bias: what is then added.
      epsilon: added to the variance.
    """
    return _layer_norm(*vary_alike(x, scale, bias), epsilon)


class LayerNorm(nn.Module):
    """Layer normalisation with the epsilon of vision transformers. Parameters: `scale`, `bias`.

    Attributes:
      epsilon: added to the variance.
      dtype: of the output; None is what input and parameters promote to.
    """

    epsilon: float = 1e-6
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        shape = (x.shape[-1],)
        scale = parameter(self, "scale", nn.initializers.ones, shape, jnp.float32)
        bias = parameter(self, "bias", nn.initializers.zeros, shape, jnp.float32)
        dtype = self.dtype or jnp.promote_types(x.dtype, jnp.float32)
        return layer_norm(x.astype(dtype), scale, bias, self.epsilon)


def _of_groups(values: Array, groups: int) -> Array:
    """The sum of the channels [b, c] of each group, for each of these channels."""
    batch, channels = values.shape
    totals = values.reshape(batch, groups, -1).sum(-1, keepdims=True)
    return jnp.broadcast_to(totals, (batch, groups, channels // groups)).reshape(values.shape)


def _over_places(*arrays: Array) -> list[Array]:
    """The sums of maps [b, h, w, c] over their places, in one pass, row by row."""
    return [rows.sum(1) for rows in sums(arrays, (2,))]


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _group_norm(x, scale, bias, groups, epsilon):
    return _group_norm_forward(x, scale, bias, groups, epsilon)[0]


def _spread(values: Array) -> Array:
    """Numbers of samples' channels [b, c], to be broadcast over maps."""
    return values[:, None, None]


def _group_norm_forward(x, scale, bias, groups, epsilon):
    wide, count = accumulable(x), x[0].size // groups
    # About some value of the group, so that squares do not cancel where the mean is large.
    pivot = _of_groups(wide[:, 0, 0], groups) / (x.shape[3] // groups)
    apart = wide - _spread(pivot)
    first, second = (_of_groups(s, groups) / count for s in _over_places(apart, apart * apart))
    mean = pivot + first
    inverse = lax.rsqrt(jnp.maximum(second - first * first, 0) + epsilon)
    y = (wide - _spread(mean)) * _spread(inverse * scale) + bias
    return y.astype(x.dtype), (x, scale, mean, inverse)


def _group_norm_backward(groups, epsilon, residuals, g):
    x, scale, mean, inverse = residuals
    count = x[0].size // groups
    g, apart = accumulable(g), accumulable(x) - _spread(mean)
    total, slope = _over_places(g, g * apart)
    slope = slope * inverse
    g_bar, g_slope = (_of_groups(s * scale, groups) / count for s in (total, slope))
    inner = g * scale - _spread(g_bar) - apart * _spread(inverse * g_slope)
    return (_spread(inverse) * inner).astype(x.dtype), slope.sum(0), total.sum(0)


_group_norm.defvjp(_group_norm_forward, _group_norm_backward)


def group_norm(
    x: Float[Array, "b *size c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    groups: int,
    epsilon: float,
) -> Float[Array, "b *size c"]:
    """Normalises each sample's groups of channels by their mean and variance over the whole map.

    Wu and He, "Group Normalization", 2018, https://arxiv.org/abs/1803.08494. Statistics are in
    float32. The gradient is written by hand; it keeps `x` in its own dtype and two numbers a group.
    Forward and backward read the map twice each.

    Args:
      x: activations, channels last.
      scale: what the normalised activations are multiplied by.
      bias: what is then added.
      groups: of channels beside each other.
      epsilon: added to the variance.

    Raises:
      UserError: the channels cannot be divided into so many groups.
    """
    batch, *_, channels = x.shape
    if channels % groups:
        raise UserError(f"{channels} channels cannot be divided into {groups} groups.")
    maps = x.reshape(batch, -1, x.shape[-2] if x.ndim > 2 else 1, channels)
    return _group_norm(*vary_alike(maps, scale, bias), groups, epsilon).reshape(x.shape)


class GroupNorm(nn.Module):
    """Group normalisation as in PyTorch. Parameters: `scale` and `bias`, float32.

    Attributes:
      groups: of channels beside each other.
      epsilon: added to the variance.
      dtype: of the output; None is that of the input.
    """

    groups: int = 32
    epsilon: float = 1e-5
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b *size c"]) -> Float[Array, "b *size c"]:
        shape = (x.shape[-1],)
        scale = parameter(self, "scale", nn.initializers.ones, shape, jnp.float32)
        bias = parameter(self, "bias", nn.initializers.zeros, shape, jnp.float32)
        x = x.astype(self.dtype or x.dtype)
        return group_norm(x, scale, bias, self.groups, self.epsilon)
