"""Convolutions whose form is chosen per platform when they are lowered.

XLA's CPU backend runs depthwise, grouped, transposed and tiny-map convolutions 10 to 600 times
slower than it could. Each has here, beside the plain `lax` form, a form made of slices,
multiply-adds and matmuls; `benchmarks/ops.py` measures them. Both are the same function with the
same gradients, so a checkpoint, a seed or a test means the same on every platform.

Arrays are NHWC, kernels HWIO, padding is symmetric or explicit as in PyTorch. The ops that have
two forms differentiate in reverse mode (any order), not in forward mode.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim
from jaxtyping import Array, Float

from jaxvision.ops import winograd as minimal
from jaxvision.ops.forms import (
    accumulable,
    batch_parts,
    channel_sum,
    computed_once,
    in_memory,
    per_platform,
    sums,
    swapped_in_memory,
)
from jaxvision.ops.linear import matmul
from jaxvision.ops.windows import (
    Padding,
    Pair,
    Window,
    overlap_add,
    pad,
    pad_pairs,
    pair,
    window_patches,
    window_taps,
)


def conv2d(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw i o"],
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    winograd: bool = False,
) -> Float[Array, "b oh ow o"]:
    """The 2-D convolution of `torch.nn.functional.conv2d` (a cross-correlation).

    Args:
      x: the map.
      kernel: HWIO, of the same dtype; `i` is `c // groups`.
      stride: of the windows, one number or (rows, columns).
      padding: with zeros; `p`, `(rows, columns)` or `((top, bottom), (left, right))`.
      dilation: the distance between the taps of the kernel.
      groups: how many groups the channels fall into; group g of the input makes group g of the
        output. `c` groups make a depthwise convolution.
      winograd: whether CPUs may take the form of `ops.winograd` where it suits; it is rounded
        otherwise.
    """
    channels, (rows, columns, group_channels, features) = x.shape[3], kernel.shape
    if channels != groups * group_channels or features % groups:
        raise ValueError(
            f"A kernel of shape {kernel.shape} in {groups} groups does not fit {channels} channels:"
            f" it takes {groups} x {group_channels} and makes {features}."
        )
    window = Window((rows, columns), pair(stride), pair(dilation), pad_pairs(padding))
    window, kernel = _without_idle_taps(window, x.shape[1:3], kernel)
    if groups == channels == features:
        return _depthwise(window, x, kernel)
    if groups > 1:
        return _grouped(window, x, kernel)
    if window.padding == ((0, 0), (0, 0)):
        if window.size == (1, 1):
            return matmul(x[:, :: window.stride[0], :: window.stride[1]], kernel[0, 0])
        if window.size == window.stride and window.dilation == (1, 1) and _tiles(x, window.size):
            return _patchify(window, x, kernel)
    if winograd and window == _SAME and minimal.suits(x, features):
        return _tiled(window, x, kernel)
    # XLA swaps the operands of a convolution whose kernel is larger than its input, and the swap
    # is slow on CPUs. The input, kernel and output take these parts in turn in the three passes.
    # Where the outputs outnumber the windows, turning the kernel around for the gradient is slow; a
    # network of any batch is exported for its values alone.
    taps, windows = math.prod(window.size), math.prod(window.output_size(x.shape[1:3]))
    many = is_symbolic_dim(x.shape[0]) or x.shape[0] * windows > features
    if taps <= windows <= x.shape[1] * x.shape[2] and many:
        return _whole(window, x, kernel)
    return _small(window, x, kernel)


def _without_idle_taps(window: Window, size: Sequence[int], kernel: Array) -> tuple[Window, Array]:
    """Leaves out the outer rows and columns of taps that read nothing but padding.

    On a map of 8x8, a 3x3 kernel dilated by 12 is its tap in the middle.
    """
    kept, padding = [], []
    for n, m, k, s, d, (before, after) in zip(
        size, window.output_size(size), *window[:3], window.padding, strict=True
    ):
        firsts = [i * d - before for i in range(k)]  # what each tap sees first
        left = max(0, min(sum(first + (m - 1) * s < 0 for first in firsts), before // d, k - 1))
        right = max(0, min(sum(first >= n for first in firsts), after // d, k - 1 - left))
        kept.append(slice(left, k - right))
        padding.append((before - left * d, after - right * d))
    if all(part == slice(0, k) for part, k in zip(kept, window.size, strict=True)):
        return window, kernel
    kernel = kernel[tuple(kept)]
    return window._replace(size=kernel.shape[:2], padding=tuple(padding)), kernel


def _tiles(x: Array, patch: tuple[int, int]) -> bool:
    return x.shape[1] % patch[0] == 0 and x.shape[2] % patch[1] == 0


def _plain(window: Window, x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window.stride,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3] // kernel.shape[2],
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _on_cpu(window: Window, x: Array, kernel: Array) -> Array:
    return _plain(window, x, kernel)


def _backward_on_cpu(window: Window, residuals: tuple, g: Array) -> tuple[Array, Array]:
    # Both gradients want g, and that of the kernel transposes it and x: copied, not computed again.
    x, kernel = residuals
    x, g = in_memory(x), in_memory(g)
    dx = _input_gradient(window, x.shape[1:3], kernel, g)
    return dx, _kernel_gradient(window, x, g)


def _kernel_gradient(window: Window, x: Array, g: Array) -> Array:
    # It is a convolution whose channels are the batch, and wants four at least to be fast.
    if (strips := -(-4 // x.shape[0])) > 1:
        window, x, g = _in_strips(window, x, g, strips)
    gradients = [_kernel_gradient_of(window, x, g) for x, g in batch_parts(x, g)]
    return sum(gradients[1:], start=gradients[0])


def _kernel_gradient_of(window: Window, x: Array, g: Array) -> Array:
    """A convolution whose batch are the channels and whose channels are the batch.

    XLA transposes its operands to the order that its CPU library takes, but not within loops and
    branches, where it would fall back to code that is a hundred times slower. So we do it.
    """
    padding = []
    for n, k, s, d, (before, _), m in zip(
        x.shape[1:3],
        window.size,
        window.stride,
        window.dilation,
        window.padding,
        g.shape[1:3],
        strict=True,
    ):
        padding.append((before, (k - 1) * d + (m - 1) * s + 1 - n - before))
    gradient = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        window.dilation,
        padding,
        rhs_dilation=window.stride,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return gradient.transpose(1, 2, 0, 3)


_on_cpu.defvjp(
    lambda window, x, kernel: (_on_cpu(window, x, kernel), (x, kernel)), _backward_on_cpu
)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_tiles(window: Window, x: Array, kernel: Array) -> Array:
    return minimal.conv3x3(x, kernel)


def _backward_by_tiles(window: Window, residuals: tuple, g: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    x, g = in_memory(x), in_memory(g)
    dx = minimal.conv3x3(g, swapped_in_memory(kernel[::-1, ::-1]))
    # Of few channels the sums take longer than what they save.
    if min(kernel.shape[2:]) >= 128:
        return dx, minimal.kernel_gradient(x, g)
    return dx, _kernel_gradient(window, x, g)


_by_tiles.defvjp(
    lambda window, x, kernel: (_by_tiles(window, x, kernel), (x, kernel)), _backward_by_tiles
)


def _input_gradient(window: Window, size: Sequence[int], kernel: Array, g: Array) -> Array:
    padding = []
    for n, k, s, d, (before, _), m in zip(
        size, window.size, window.stride, window.dilation, window.padding, g.shape[1:3], strict=True
    ):
        low = (k - 1) * d - before
        padding.append((low, n - 1 + before - (m - 1) * s))
    return lax.conv_general_dilated(
        g,
        swapped_in_memory(kernel[::-1, ::-1]),
        (1, 1),
        padding,
        lhs_dilation=window.stride,
        rhs_dilation=window.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _in_strips(window: Window, x: Array, g: Array, strips: int) -> tuple[Window, Array, Array]:
    """A batch of horizontal strips of the map and of its gradient; they share a kernel's gradient.

    The strips of the map overlap where their windows do. Rows that are added hold zeros.
    """
    (rows, columns), stride = g.shape[1:3], window.stride[0]
    height = -(-rows // strips)
    span = (height - 1) * stride + (window.size[0] - 1) * window.dilation[0] + 1
    (top, _), sides = window.padding
    below = (strips - 1) * height * stride + span - top - x.shape[1]
    x, g = pad(x, ((top, below), sides)), pad(g, ((0, strips * height - rows), (0, 0)))
    starts = range(0, strips * height * stride, height * stride)
    x = jnp.stack([x[:, start : start + span] for start in starts], axis=1)
    x = x.reshape(-1, span, *x.shape[3:])
    return window._replace(padding=((0, 0), (0, 0))), x, g.reshape(-1, height, columns, g.shape[3])


def _im2col(window: Window, x: Array, kernel: Array) -> Array:
    patches = window_patches(x, window)
    patches = patches.reshape(*patches.shape[:3], -1)
    return matmul(patches, kernel.reshape(-1, kernel.shape[3]))


def _patchify_matmul(window: Window, x: Array, kernel: Array) -> Array:
    (rows, columns), (batch, height, width, channels) = window.size, x.shape
    x = x.reshape(batch, height // rows, rows, width // columns, columns, channels)
    return jnp.einsum("bhiwjc,ijco->bhwo", x, kernel)


def _grouped_products(window: Window, x: Array, kernel: Array) -> Array:
    """A product of patches and kernel for each group: for few places."""
    rows, columns, group_channels, features = kernel.shape
    batch, height, width, channels = x.shape
    groups = channels // group_channels
    x = x.reshape(batch, height, width, groups, group_channels).transpose(3, 0, 1, 2, 4)
    x = computed_once(x).reshape(groups * batch, height, width, group_channels)
    patches = window_patches(x, window)
    size = patches.shape[1:3]
    patches = patches.reshape(groups, -1, rows * columns * group_channels)
    kernel = kernel.reshape(patches.shape[2], groups, features // groups).transpose(1, 0, 2)
    y = jnp.einsum("gnk,gko->gno", patches, kernel).reshape(groups, batch, *size, -1)
    return y.transpose(1, 2, 3, 0, 4).reshape(batch, *size, features)


def _grouped_merged(window: Window, x: Array, kernel: Array) -> Array:
    """Some groups at a time as one dense convolution, whose kernel is 0 between groups.

    That is more multiplications, but of a width that fills the processor's vectors. An infinite
    value makes NaN in the groups that it is merged with, not in its own alone.
    """
    rows, columns, group_channels, features = kernel.shape
    groups = x.shape[3] // group_channels
    fitting = [n for n in range(1, groups + 1) if groups % n == 0 and n * group_channels <= 32]
    merged = max(fitting, default=1)
    parts = groups // merged
    kernel = kernel.reshape(rows, columns, group_channels, parts, merged, features // groups)
    own = jnp.eye(merged, dtype=kernel.dtype)
    kernel = jnp.einsum("ijcpmo,mn->pijncmo", kernel, own)
    kernel = kernel.reshape(parts, rows, columns, merged * group_channels, features // parts)
    dense = partial(conv2d, stride=window.stride, padding=window.padding, dilation=window.dilation)
    slices = jnp.split(x, parts, axis=3)
    return jnp.concatenate([dense(x, k) for x, k in zip(slices, kernel, strict=True)], axis=3)


def _grouped_on_cpu(window: Window, x: Array, kernel: Array) -> Array:
    few = math.prod(window.output_size(x.shape[1:3])) <= 16
    return (_grouped_products if few else _grouped_merged)(window, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _depthwise_shift(window: Window, x: Array, kernel: Array) -> Array:
    weights = accumulable(kernel).reshape(-1, x.shape[3])
    taps = window_taps(x, window)
    return sum(tap * weight for tap, weight in zip(taps, weights, strict=True)).astype(x.dtype)


def _depthwise_backward(window: Window, residuals: tuple, g: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    weights = accumulable(kernel).reshape(-1, x.shape[3])
    dx = overlap_add(lambda n, g: g * weights[n], [g], window, x.shape[1:3]).astype(x.dtype)
    # One reduction with an accumulator per tap reads x and g once, not once per tap.
    g = accumulable(g)
    of_samples = sums([tap * g for tap in window_taps(x, window)], (1, 2))
    # The batch in a second step: its samples are what the cores share in the first.
    dkernel = channel_sum(jnp.concatenate(of_samples, axis=1)).reshape(kernel.shape)
    return dx, dkernel.astype(kernel.dtype)


_depthwise_shift.defvjp(
    lambda window, x, kernel: (_depthwise_shift(window, x, kernel), (x, kernel)),
    _depthwise_backward,
)

_SAME = Window((3, 3), padding=((1, 1), (1, 1)))
_whole = per_platform(cpu=_on_cpu, default=_plain)
_tiled = per_platform(cpu=_by_tiles, default=_plain)
_depthwise = per_platform(cpu=_depthwise_shift, default=_plain)
_grouped = per_platform(cpu=_grouped_on_cpu, default=_plain)
_small = per_platform(cpu=_im2col, default=_plain)
_patchify = per_platform(cpu=_patchify_matmul, default=_plain)


def conv_transpose2d(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw o i"],
    *,
    stride: Pair,
    padding: Pair = 0,
    output_padding: Pair = 0,
) -> Float[Array, "b oh ow o"]:
    """The transposed convolution of `torch.nn.ConvTranspose2d`, the gradient of `conv2d`.

    The output is `(h - 1) * stride - 2 * padding + kh + output_padding` high, and likewise wide.

    Args:
      x: the map.
      kernel: the HWIO kernel of the convolution whose transpose this is: its outputs come in
        here, so the last axis is `c`. PyTorch's (in, out, kh, kw) maps to it as a convolution's
        (out, in, kh, kw) maps to HWIO.
      stride: of that convolution, one number or (rows, columns).
      padding: of that convolution; here, what is cropped from each side.
      output_padding: rows and columns added at the bottom and the right; less than the stride.
    """
    if x.shape[3] != kernel.shape[3]:
        raise ValueError(
            f"A transposed kernel of shape {kernel.shape} (kh, kw, out, in) does not fit"
            f" {x.shape[3]} channels."
        )
    crop = tuple(
        (p, p - extra) for p, extra in zip(pair(padding), pair(output_padding), strict=True)
    )
    return _transpose(Window(kernel.shape[:2], pair(stride), padding=crop), x, kernel)


def _transpose_plain(window: Window, x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        window_strides=(1, 1),
        padding=[
            (k - 1 - lo, k - 1 - hi)
            for k, (lo, hi) in zip(window.size, window.padding, strict=True)
        ],
        lhs_dilation=window.stride,
        dimension_numbers=("NHWC", "HWOI", "NHWC"),
    )


def _transpose_subpixel(window: Window, x: Array, kernel: Array) -> Array:
    """All phases of the output as the features of one convolution, then depth to space.

    Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016,
    https://arxiv.org/abs/1609.07009
    """
    size, (batch, height, width, channels) = window.size, x.shape
    # A single place has nothing to overlap with: any stride is right, and this one is a matmul.
    down, across = size if (height, width) == (1, 1) else window.stride
    rows, columns = -(-size[0] // down), -(-size[1] // across)
    kernel = jnp.pad(
        kernel, ((0, rows * down - size[0]), (0, columns * across - size[1]), (0, 0), (0, 0))
    )
    features = kernel.shape[2]
    phases = kernel.reshape(rows, down, columns, across, features, channels)[::-1, :, ::-1]
    phases = phases.transpose(0, 2, 5, 1, 3, 4).reshape(rows, columns, channels, -1)
    full = pad_pairs((rows - 1, columns - 1))
    y = _im2col(Window((rows, columns), padding=full), x, phases)
    height, width = y.shape[1:3]
    y = y.reshape(batch, height, width, down, across, features).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(batch, height * down, width * across, features)
    crop = [
        (-lo, (n - 1) * s + k - hi - m)
        for n, m, k, s, (lo, hi) in zip(
            x.shape[1:3], y.shape[1:3], size, window.stride, window.padding, strict=True
        )
    ]
    return pad(y, crop)


_transpose = per_platform(
    cpu=_transpose_subpixel, default=_transpose_plain, plain=_transpose_subpixel
)
