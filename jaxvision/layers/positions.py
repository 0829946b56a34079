"""Positions of tokens on a grid: learned embeddings and relative biases, for grids of any size."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.typing import Initializer
from jax import lax
from jaxtyping import Array, Float, Int

from jaxvision.errors import UserError
from jaxvision.layers.parameters import parameter
from jaxvision.ops.resize import resize_matrix

Grid = tuple[int, int]
Interpolation = Literal["geometric", "bilinear"]
_normal = nn.initializers.normal(0.02)


def offsets(window: Grid) -> int:
    """How many offsets there are between two places of a window."""
    return (2 * window[0] - 1) * (2 * window[1] - 1)


def stored_grid(
    rows: int,
    wanted: Grid | None = None,
    declared: Grid | None = None,
    count: Callable[[Grid], int] = math.prod,
) -> Grid:
    """The grid that a stored array of so many rows is of: rows and columns.

    Without a declaration it is a square, as in published files, or else the wanted grid.

    Args:
      rows: of the array.
      wanted: the grid that it is to be used on.
      declared: the grid that the network says it is of.
      count: how many rows the array of a grid has: one a place, or one an offset (`offsets`).

    Raises:
      UserError: another number of rows than the declared grid's; or no declaration, and a grid that
        is not square and not the wanted one, or as well a square as the wanted one.
    """
    if declared is not None:
        if count(declared) != rows:
            raise UserError(
                f"grid={declared[0]}x{declared[1]} has {count(declared)} positions; these are "
                f"{rows}."
            )
        return declared
    side = next(side for side in itertools.count(1) if count((side, side)) >= rows)
    found = {grid for grid in ((side, side), wanted) if grid and count(grid) == rows}
    if len(found) == 1:
        return found.pop()
    which = " or ".join(f"{a}x{b}" for a, b in sorted(found)) or "a grid that is not square"
    raise UserError(
        f"{rows} stored positions are of {which}: give the network, or the encoder among "
        "encoder_options, the grid=(rows, columns) of patches that they are made for."
    )


def resample_positions(
    positions: Float[Array, "1 n c"], new: Grid, prefix: int = 1, old: Grid | None = None
) -> Float[Array, "1 m c"]:
    """Position embeddings for another grid, by antialiased bicubic interpolation as in timm.

    Args:
      positions: of `prefix` tokens that have no place (class token), then of the grid row by row.
      new: rows and columns.
      prefix: how many positions stay as they are.
      old: rows and columns of `positions`; see `stored_grid` for the default.

    Raises:
      UserError: see `stored_grid`.
    """
    old = stored_grid(positions.shape[1] - prefix, new, old)
    if old == new:
        return positions
    rows, columns = (
        jnp.asarray(resize_matrix(a, b, "bicubic", antialias=True)) for a, b in zip(old, new)
    )
    grid = jnp.reshape(positions[:, prefix:], (*old, -1)).astype(jnp.float32)
    grid = jnp.einsum("ih,jw,hwc->ijc", rows, columns, grid, precision=lax.Precision.HIGHEST)
    grid = grid.reshape(1, new[0] * new[1], -1).astype(positions.dtype)
    return jnp.concatenate([jnp.asarray(positions[:, :prefix]), grid], axis=1)


def learned_positions(
    module: nn.Module,
    name: str,
    grid: Grid,
    channels: int,
    prefix: int,
    declared: Grid | None = None,
    start: Initializer = _normal,
) -> Float[Array, "1 n c"]:
    """The parameter `name` of `module` for a grid; resampled where it was made for another.

    Args:
      module: has the parameter.
      name: of the parameter.
      grid: rows and columns that positions are wanted of.
      channels: of a position.
      prefix: see `resample_positions`.
      declared: the grid that the parameter is of; see `stored_grid`.
      start: the initialiser.

    Raises:
      UserError: see `stored_grid`.
    """
    shape = (1, prefix + math.prod(declared or grid), channels)
    if module.has_variable("params", name):
        shape = module.get_variable("params", name).shape
    positions = jnp.asarray(parameter(module, name, start, shape))
    return resample_positions(positions, grid, prefix, declared)


def fixed_positions(
    module: nn.Module,
    name: str,
    grid: Grid,
    channels: int,
    prefix: int,
    declared: Grid | None = None,
) -> Float[Array, "1 n c"]:
    """Those of MAE: a parameter, as files have it, of sines and cosines, and without a gradient.

    Tokens without a place have zeros. He et al., Masked Autoencoders Are Scalable Vision Learners,
    2021, https://arxiv.org/abs/2111.06377.

    Args: see `learned_positions`.

    Raises:
      UserError: see `stored_grid`.
    """

    def start(key: Array, shape: Sequence[int], dtype: Any) -> Array:
        waves = sincos_positions(declared or grid, channels, endpoint=False)
        return jnp.asarray(np.pad(waves, ((prefix, 0), (0, 0)))[None], dtype)

    return lax.stop_gradient(
        learned_positions(module, name, grid, channels, prefix, declared, start)
    )


def sincos_positions(
    grid: Grid, channels: int, temperature: float = 10_000.0, endpoint: bool = True
) -> Float[np.ndarray, "n c"]:
    """Fixed positions: sines and cosines of the column, then of the row, at falling frequencies.

    Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers, 2021,
    https://arxiv.org/abs/2104.02057.

    Args:
      grid: rows and columns.
      channels: a multiple of four.
      temperature: ratio of the highest to the lowest frequency.
      endpoint: whether the lowest one is reached; MAE's and DiT's stop one short of it.
    """
    if channels % 4:
        raise ValueError(f"Sine-cosine positions need channels in fours, not {channels}.")
    rows, columns = np.mgrid[: grid[0], : grid[1]].reshape(2, -1)
    quarter = channels // 4
    rates = temperature ** -(np.arange(quarter) / max(1, quarter - endpoint))
    angles = [places[:, None] * rates for places in (columns, rows)]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1, dtype=np.float32)


def sine_positions(
    grid: Grid, channels: int, temperature: float = 10_000.0
) -> Float[np.ndarray, "n c"]:
    """Fixed positions of DETR: of the row, then of the column, as parts of the whole turn.

    Each half has sines and cosines in turn, at falling frequencies. Carion et al., End-to-End
    Object Detection with Transformers, 2020, https://arxiv.org/abs/2005.12872.

    Args:
      grid: rows and columns.
      channels: a multiple of four.
      temperature: ratio of the highest to the lowest frequency.

    Raises:
      UserError: another number of channels.
    """
    if channels % 4:
        raise UserError(f"Sine positions need channels in fours, not {channels}.")
    places = np.mgrid[: grid[0], : grid[1]].reshape(2, -1) + 1.0
    turns = places / (np.array(grid)[:, None] + 1e-6) * 2 * math.pi
    half = channels // 2
    angles = turns[..., None] / temperature ** (np.arange(0, half, 2) / half)
    waves = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(2, -1, half)
    return np.concatenate(list(waves), axis=1, dtype=np.float32)


def sequence_positions(
    length: int, channels: int, temperature: float = 10_000.0
) -> Float[np.ndarray, "n c"]:
    """Fixed positions of words: sines and cosines in turn, at falling frequencies.

    Vaswani et al., Attention Is All You Need, 2017, https://arxiv.org/abs/1706.03762.

    Args:
      length: how many.
      channels: an even number.
      temperature: ratio of the highest to the lowest frequency.

    Raises:
      UserError: another number of channels.
    """
    if channels % 2:
        raise UserError(f"Sine positions of words need channels in twos, not {channels}.")
    angles = np.arange(length)[:, None] / temperature ** (np.arange(0, channels, 2) / channels)
    waves = np.stack([np.sin(angles), np.cos(angles)], -1)
    return waves.reshape(length, channels).astype(np.float32)


def relative_index(window: Grid, class_token: bool = False) -> Int[np.ndarray, "n n"]:
    """Which row of the table of relative biases is for each (query, key) of a window.

    The table has a row for each of the (2h - 1)(2w - 1) offsets, then with a class token the three
    of (class, token), (token, class) and (class, class).
    """
    height, width = window
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
    places = places.reshape(-1, 2)
    offset = places[:, None] - places[None] + np.array([height - 1, width - 1])
    index = offset[..., 0] * (2 * width - 1) + offset[..., 1]
    if not class_token:
        return index
    rows = offsets(window)
    index = np.pad(index, ((1, 0), (1, 0)))
    index[0], index[:, 0], index[0, 0] = rows, rows + 1, rows + 2
    return index


def _stretched(old: int, new: int) -> np.ndarray:
    """Places of `old` offsets in the new window: dense at its middle, in geometric progression."""
    low, high, ratio = 1.01, 1.5, 1.01
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio ** (old // 2)) / (1 - ratio) > new // 2:
            high = ratio
        else:
            low = ratio
    places = np.cumsum(ratio ** np.arange(old // 2))
    return np.concatenate([-places[::-1], [0.0], places])


def _bias_matrix(old: int, new: int, interpolation: Interpolation) -> np.ndarray:
    """Linear interpolation from the stretched places; beyond the last, the last."""
    if old == new:
        return np.eye(old, dtype=np.float32)
    if interpolation == "bilinear":
        return resize_matrix(old, new, "bilinear")
    places, targets = _stretched(old, new), np.arange(new) - float(new // 2)
    return np.stack(
        [np.interp(targets, places, row) for row in np.eye(old)], axis=1, dtype=np.float32
    )


def resize_relative_bias(
    table: Float[Array, "n heads"],
    new: Grid,
    class_token: bool = False,
    old: Grid | None = None,
    interpolation: Interpolation = "geometric",
) -> Float[Array, "m heads"]:
    """The table of relative biases for another window.

    As in BEiT's code and timm near offsets matter more: the old ones are laid out in a geometric
    progression before they are interpolated linearly (Bao et al. 2021,
    https://arxiv.org/abs/2106.08254). transformers, after MiDaS v3.1 (Birkl et al. 2023,
    https://arxiv.org/abs/2307.14460), lays them out evenly.

    Args:
      table: one row an offset, see `relative_index`.
      new: rows and columns of the window.
      class_token: whether the last three rows are those of the class token.
      old: the window of `table`; see `stored_grid` for the default.
      interpolation: "geometric", as in timm, or "bilinear", as in transformers.

    Raises:
      UserError: see `stored_grid`.
    """
    count = table.shape[0] - (3 if class_token else 0)
    old = stored_grid(count, new, old, offsets)
    if old == new:
        return table
    rows, columns = (
        jnp.asarray(_bias_matrix(2 * a - 1, 2 * b - 1, interpolation)) for a, b in zip(old, new)
    )
    grid = jnp.reshape(table[:count], (2 * old[0] - 1, 2 * old[1] - 1, -1))
    grid = jnp.einsum("ih,jw,hwc->ijc", rows, columns, grid, precision=lax.Precision.HIGHEST)
    grid = grid.reshape(-1, table.shape[1]).astype(table.dtype)
    return jnp.concatenate([grid, jnp.asarray(table[count:])])


def relative_bias(
    module: nn.Module,
    window: Grid,
    heads: int,
    class_token: bool = False,
    declared: Grid | None = None,
    interpolation: Interpolation = "geometric",
) -> Float[Array, "heads n n"]:
    """The bias of each (query, key) from the parameter `relative_position_bias_table` of `module`.

    A table that was made for another window is resized.

    Args:
      module: has the parameter.
      window: rows and columns of the tokens.
      heads: of the attention.
      class_token: whether the first token is one without a place.
      declared: the window that the table is of; see `stored_grid`.
      interpolation: see `resize_relative_bias`.

    Raises:
      UserError: see `stored_grid`.
    """
    name, extra = "relative_position_bias_table", 3 if class_token else 0
    shape = (offsets(declared or window) + extra, heads)
    if module.has_variable("params", name):
        shape = module.get_variable("params", name).shape
    table = jnp.asarray(parameter(module, name, nn.initializers.truncated_normal(0.02), shape))
    table = resize_relative_bias(table, window, class_token, declared, interpolation)
    return jnp.moveaxis(table[relative_index(window, class_token)], -1, 0)
