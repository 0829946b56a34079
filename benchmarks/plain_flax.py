"""The same networks on Flax's own layers, as Flax's examples and Scenic write them.

Inside `plain_layers()` a network of jaxvision is traced with each of its layers replaced by Flax's:
`nn.Conv`, `nn.ConvTranspose`, `nn.Dense`, `nn.BatchNorm`, `nn.LayerNorm`, `nn.max_pool`,
`nn.avg_pool`, `nn.dot_product_attention`. Parameters keep their places, so both are given the same
ones.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxvision.layers import convolution, head, linear, normalization, transformer
from jaxvision.models.backbones import swin
from jaxvision.ops import pooling
from jaxvision.ops.windows import pad_pairs, pair


def _conv(layer: convolution.Conv2d, x: jax.Array) -> jax.Array:
    size, dilation = pair(layer.kernel_size), pair(layer.dilation)
    padding = layer.padding
    if padding is None:
        padding = tuple((k - 1) // 2 * d for k, d in zip(size, dilation, strict=True))
    plain = nn.Conv(
        layer.features,
        size,
        pair(layer.stride),
        pad_pairs(padding),
        kernel_dilation=dilation,
        feature_group_count=layer.groups,
        use_bias=layer.use_bias,
        dtype=layer.dtype,
        parent=None,
    )
    return plain.apply({"params": layer.variables["params"]}, x)


def _conv_transpose(layer: convolution.ConvTranspose2d, x: jax.Array) -> jax.Array:
    (rows, columns), (top, left) = pair(layer.kernel_size), pair(layer.padding)
    down, across = pair(layer.output_padding)
    plain = nn.ConvTranspose(
        layer.features,
        (rows, columns),
        pair(layer.stride),
        (
            (rows - 1 - top, rows - 1 - top + down),
            (columns - 1 - left, columns - 1 - left + across),
        ),
        transpose_kernel=True,
        use_bias=layer.use_bias,
        dtype=layer.dtype,
        parent=None,
    )
    return plain.apply({"params": layer.variables["params"]}, x)


def _batch_norm(layer: normalization.BatchNorm, x: jax.Array, train: bool) -> jax.Array:
    plain = nn.BatchNorm(
        use_running_average=not train,
        momentum=layer.momentum,
        epsilon=layer.epsilon,
        dtype=layer.dtype,
        use_bias=layer.use_bias,
        use_scale=layer.use_scale,
        parent=None,
    )
    own = layer.variables
    variables = {"params": own.get("params", {}), "batch_stats": own["batch_stats"]}
    if not train:
        return plain.apply(variables, x)
    y, updated = plain.apply(variables, x, mutable=["batch_stats"])
    for name, value in updated["batch_stats"].items():
        layer.put_variable("batch_stats", name, value)
    return y


def _layer_norm(layer: normalization.LayerNorm, x: jax.Array) -> jax.Array:
    plain = nn.LayerNorm(layer.epsilon, layer.dtype, parent=None)
    return plain.apply({"params": layer.variables["params"]}, x)


def _dense(layer: linear.Dense, x: jax.Array) -> jax.Array:
    if not layer.features:  # a head without classes
        return x
    plain = nn.Dense(layer.features, layer.use_bias, layer.dtype, parent=None)
    return plain.apply({"params": layer.variables["params"]}, x)


_LAYERS = {
    convolution.Conv2d: _conv,
    convolution.ConvTranspose2d: _conv_transpose,
    normalization.BatchNorm: _batch_norm,
    normalization.LayerNorm: _layer_norm,
    linear.Dense: _dense,
    head.Head: _dense,
}


def _replaced(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """A method of a layer, or what Flax's layer does."""
    plain = _LAYERS.get(type(context.module))
    if context.method_name != "__call__" or plain is None:
        return call(*args, **kwargs)
    return plain(context.module, *args, **kwargs)


def _max_pool(window: Any, x: jax.Array) -> jax.Array:
    return nn.max_pool(x, window.size, window.stride, window.padding)


def _sum_pool(window: Any, x: jax.Array) -> jax.Array:
    return nn.pooling.pool(x, 0.0, lax.add, window.size, window.stride, window.padding)


def _attention(q: jax.Array, k: jax.Array, v: jax.Array, bias: Any = None) -> jax.Array:
    if bias is not None and len(bias) > 1:
        bias = jnp.tile(bias, (len(q) // len(bias), 1, 1, 1))
    return nn.dot_product_attention(q, k, v, bias)


@contextlib.contextmanager
def plain_layers() -> Iterator[None]:
    """What is traced inside uses Flax's layers."""
    with (
        nn.intercept_methods(_replaced),
        mock.patch.object(pooling, "_max_pool", _max_pool),
        mock.patch.object(pooling, "_sum_pool", _sum_pool),
        mock.patch.object(transformer, "dot_product_attention", _attention),
        mock.patch.object(transformer, "computed_once", lambda x: x),
        mock.patch.object(swin, "computed_once", lambda x: x),
    ):
        yield
