"""3x3 convolutions with four ninths of the multiplications, for CPUs.

Winograd's minimal filtering F(2x2, 3x3), by Lavin and Gray, Fast Algorithms for Convolutional
Neural Networks, 2015, https://arxiv.org/abs/1509.09308. The map is cut into tiles of 2x2 outputs,
which see 4x4 inputs. Of each tile sixteen sums are taken, multiplied by sixteen matrices that are
sums of the kernel's nine, and added up again. The gradients of map and kernel are made likewise.
Rounding is that of float32; in narrower types the sums would lose digits.

Sums and products are made for some images at a time, so that they stay in the processor's cache.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim
from jaxtyping import Array, Float

from jaxvision.ops.forms import in_memory

_CACHE = 2**21  # numbers, of the sums of some images


def suits(x: Float[Array, "b h w c"], features: int) -> bool:
    """Whether a convolution of `x` to so many features is faster in this form.

    Few channels are sooner multiplied than added; few places, than the kernel's sums are made.
    """
    batch, height, width, channels = x.shape
    even = height % 2 == 0 and width % 2 == 0
    places = height * width * (1 if is_symbolic_dim(batch) else batch)
    many = min(channels, features) >= 32 and places >= 256
    return even and many and x.dtype == jnp.float32


def _kernel_sums(kernel: Array) -> list[list[Array]]:
    """G k G^T: sixteen matrices [c, o]."""

    def along(a: Array, b: Array, c: Array) -> list[Array]:
        ends = (a + c) / 2
        return [a, ends + b / 2, ends - b / 2, c]

    return [along(*row) for row in along(*kernel)]


def _kernel_sums_transposed(sums: list[list[Array]]) -> Array:
    """G^T s G: the gradient of a kernel [3, 3, c, o]."""

    def along(a: Array, b: Array, c: Array, d: Array) -> Array:
        both = (b + c) / 2
        return jnp.stack([a + both, (b - c) / 2, both + d])

    return along(*(along(*row) for row in sums))


def _input_sums(x: Array) -> list[list[Array]]:
    """B^T x B of all tiles: sixteen matrices [tiles, c]."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = x.reshape(batch, height // 2 + 1, 2, width // 2 + 1, 2, channels)

    def along(x: Array, axis: int) -> list[Array]:
        """Of pairs along an axis, which come along the next one; a tile has two."""
        count = x.shape[axis] - 1
        pairs = (lax.slice_in_dim(x, begin, begin + count, axis=axis) for begin in (0, 1))
        a, b, c, d = (lax.index_in_dim(p, i, axis + 1, False) for p in pairs for i in (0, 1))
        return [a - c, b + c, c - b, b - d]

    sums = [along(row, 2) for row in along(x, 1)]
    return [[in_memory(one.reshape(-1, channels)) for one in row] for row in sums]


def _output_sums(products: list[list[Array]], shape: tuple[Any, ...]) -> Array:
    """A^T m A of all tiles: a map of a shape."""
    batch, height, width, features = shape

    def along(a: Array, b: Array, c: Array, d: Array) -> list[Array]:
        return [a + b + c, b - c - d]

    rows = [along(*row) for row in products]
    columns = [along(*column) for column in zip(*rows)]  # [column][row] of a tile's outputs
    tiles = [
        [one.reshape(batch, height // 2, width // 2, features) for one in column]
        for column in columns
    ]
    lines = [jnp.stack([tiles[0][row], tiles[1][row]], 3) for row in (0, 1)]
    return jnp.stack(lines, 2).reshape(shape)


def _output_sums_transposed(g: Array) -> list[list[Array]]:
    """A g A^T of all tiles: sixteen matrices [tiles, o]."""
    batch, height, width, features = g.shape
    g = g.reshape(batch, height // 2, 2, width // 2, 2, features)

    def along(a: Array, b: Array) -> list[Array]:
        return [a, a + b, a - b, -b]

    rows = along(g[:, :, 0], g[:, :, 1])
    sums = [along(row[:, :, :, 0], row[:, :, :, 1]) for row in rows]
    return [[in_memory(one.reshape(-1, features)) for one in row] for row in sums]


def _parts(x: Array, channels: int) -> int:
    """Into how many equal parts a batch falls whose sums are to stay in the cache.

    With several devices the partitioner would move samples between them, so there it is one.
    """
    batch, height, width, _ = x.shape
    if is_symbolic_dim(batch) or jax.device_count() > 1:
        return 1
    wanted = -(-4 * batch * height * width * channels // _CACHE)
    return next(n for n in range(min(wanted, batch), batch + 1) if batch % n == 0)


def _split(parts: int, x: Array) -> Array:
    return x.reshape(parts, -1, *x.shape[1:])


def conv3x3(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c o"]) -> Float[Array, "b h w o"]:
    """The convolution at stride 1 of a map with even sides, padded by 1."""
    matrices = _kernel_sums(kernel)

    def some(x: Array) -> Array:
        sums = _input_sums(x)
        products = [[a @ m for a, m in zip(*rows)] for rows in zip(sums, matrices)]
        return _output_sums(products, (*x.shape[:3], kernel.shape[3]))

    parts = _parts(x, max(x.shape[3], kernel.shape[3]))
    if parts == 1:
        return some(x)
    return lax.map(some, _split(parts, x)).reshape(*x.shape[:3], kernel.shape[3])


def kernel_gradient(
    x: Float[Array, "b h w c"], g: Float[Array, "b h w o"]
) -> Float[Array, "3 3 c o"]:
    """The gradient of the kernel of `conv3x3`, by that of its output."""

    def some(x: Array, g: Array) -> list[list[Array]]:
        both = zip(_input_sums(x), _output_sums_transposed(g))
        return [
            [lax.dot_general(a, b, (((0,), (0,)), ((), ()))) for a, b in zip(*rows)]
            for rows in both
        ]

    parts = _parts(x, max(x.shape[3], g.shape[3]))
    if parts == 1:
        return _kernel_sums_transposed(some(x, g))

    def add(total: list[list[Array]], pair: tuple[Array, Array]):
        return jax.tree.map(jnp.add, total, some(*pair)), None

    zeros = jnp.zeros((x.shape[3], g.shape[3]), x.dtype)
    total, _ = lax.scan(add, [[zeros] * 4] * 4, (_split(parts, x), _split(parts, g)))
    return _kernel_sums_transposed(total)
