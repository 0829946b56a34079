"""Mean shift: clusters as the basins of a density's modes.

Comaniciu and Meer, "Mean Shift: A Robust Approach Toward Feature Space Analysis", 2002,
https://doi.org/10.1109/34.1000236. With the flat kernel the result is that of
`sklearn.cluster.MeanShift(bin_seeding=True)`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxvision.classical.kmeans import assign
from jaxvision.errors import UserError, unknown

KERNELS = ("flat", "gaussian")

_LEAF = 256  # points that lie close together and are looked at or passed over together
_LEAVES = 16  # looked at in one step
_ROWS = 256  # of a distance matrix at a time
_STILL = 1e-3  # a shift of less than this share of the bandwidth ends a seed's way
_REACH = 3.0  # deviations at which the Gaussian kernel ends


class MeanShift(NamedTuple):
    """Clusters, that of the densest mode first.

    Attributes:
      centers: the modes.
      labels: each point's nearest mode.
      bandwidth: of the kernel.
      iterations: the most that a seed took.
    """

    centers: Float[np.ndarray, "k d"]
    labels: Int[Array, " n"]
    bandwidth: float
    iterations: int


def mean_shift(
    points: Float[Array | np.ndarray, "n d"],
    bandwidth: float | None = None,
    *,
    kernel: str = "flat",
    seeds: Float[Array | np.ndarray, "s e"] | None = None,
    min_bin_freq: int = 1,
    max_iter: int = 300,
) -> MeanShift:
    """Moves seeds to the means of their surroundings until they rest; what meets is one cluster.

    Args:
      points: what to cluster.
      bandwidth: the flat kernel's radius, the Gaussian's deviation (it ends at three); by default
        `estimate_bandwidth` of the points.
      kernel: `flat` or `gaussian`.
      seeds: where to begin; by default the cells, one bandwidth wide, that hold points.
      min_bin_freq: points that such a cell holds at least.
      max_iter: moves of a seed at most.

    Raises:
      UserError: unknown kernel, no points or such that are not finite, a bandwidth that is not
        positive, or seeds that have no point near them.
    """
    if kernel not in KERNELS:
        raise unknown("kernel", kernel, KERNELS)
    if max_iter < 1 or min_bin_freq < 1:
        raise UserError(f"max_iter={max_iter} and min_bin_freq={min_bin_freq} must be at least 1.")
    points = np.asarray(points, np.float32)
    if not len(points) or not np.isfinite(points).all():
        raise UserError("Points must be finite, and at least one.")
    if bandwidth is None:
        bandwidth = estimate_bandwidth(points) or 1.0  # 1: all points are equal
    if not 0 < bandwidth < np.inf:
        raise UserError(f"bandwidth={bandwidth} must be positive.")
    if seeds is None:
        begin = bin_seeds(points, bandwidth, min_bin_freq)
    else:
        begin = np.asarray(seeds, np.float32)
    if begin.shape[1] != points.shape[1]:
        raise UserError(f"Seeds have {begin.shape[1]} dimensions, points {points.shape[1]}.")
    centre = points.mean(0)  # the origin, for the rounding's sake
    leaves = _leaves(points - centre)
    # Powers of two, so that few shapes are compiled; seeds beyond the real ones have no points.
    rows = 1 << max(len(begin) - 1, 0).bit_length()
    padded = np.pad(begin - centre, ((0, rows - len(begin)), (0, 0)), constant_values=np.inf)
    found = _climb(leaves, padded, np.float32(bandwidth), max_iter, kernel)
    modes, mass, steps = (np.asarray(a)[: len(begin)] for a in found)
    if not (mass > 0).any():
        raise UserError(f"No point lies within the bandwidth {bandwidth:g} of a seed; raise it.")
    centers = _merged(modes[mass > 0] + centre, mass[mass > 0], bandwidth)
    labels = assign(points, centers)
    return MeanShift(centers, labels, float(bandwidth), int(steps.max()))


def estimate_bandwidth(
    points: Float[Array | np.ndarray, "n d"],
    quantile: float = 0.3,
    samples: int | None = 1000,
    seed: int = 0,
) -> float:
    """The mean distance from a point to the neighbour before which this share of the points lies.

    As `sklearn.cluster.estimate_bandwidth`.

    Args:
      points: to be clustered.
      quantile: share of the points that counts as near.
      samples: points drawn to estimate it from; None: all.
      seed: of the draw.

    Raises:
      UserError: a quantile outside 0 to 1, or less than one sample.
    """
    if not 0 < quantile <= 1 or (samples is not None and samples < 1):
        raise UserError(f"quantile={quantile} is from 0 to 1, samples={samples} at least 1.")
    points = np.asarray(points, np.float32)
    if samples is not None and samples < len(points):
        points = points[np.random.default_rng(seed).permutation(len(points))[:samples]]
    return float(_mean_distance(points - points.mean(0), max(int(len(points) * quantile), 1)))


@partial(jax.jit, static_argnums=1)
def _mean_distance(points: Array, neighbours: int) -> Array:
    """The mean over the points of the distance to their `neighbours`-th, themselves the first."""

    def of_row(point: Array) -> Array:
        return jnp.sort(jnp.sum((points - point) ** 2, -1))[neighbours - 1]

    return jnp.sqrt(lax.map(of_row, points, batch_size=min(_ROWS, len(points)))).mean()


def bin_seeds(
    points: Float[np.ndarray, "n d"], size: float, min_bin_freq: int = 1
) -> Float[np.ndarray, "s d"]:
    """Centres of the cells of a grid, `size` wide, that hold points; the points if none is shared.

    Args:
      points: to be clustered.
      size: width of a cell.
      min_bin_freq: points that it holds at least.
    """
    cells = np.round(points / np.float32(size)).astype(np.int64)
    low = cells.min(0)
    shape = cells.max(0) - low + 1
    if np.prod(shape.astype(float)) < 2**62:  # cells by one number, which sorts faster
        number, counts = np.unique(np.ravel_multi_index((cells - low).T, shape), return_counts=True)
        cells = np.stack(np.unravel_index(number, shape), -1) + low
    else:
        cells, counts = np.unique(cells, axis=0, return_counts=True)
    if len(cells) == len(points):
        return points
    return (cells[counts >= min_bin_freq] * size).astype(np.float32)


class _Leaves(NamedTuple):
    """Points in groups that are close together, by repeated halving along the longest side."""

    points: Array  # [leaves, d, rows]; infinite past the end
    low: Array  # [leaves, d]
    high: Array
    sums: Array  # [leaves, d + 1]: the points', and their number


def _leaves(points: Float[np.ndarray, "n d"]) -> _Leaves:
    parts, done = [np.arange(len(points))], []
    while parts:
        part = parts.pop()
        if len(part) <= _LEAF:
            done.append(part)
            continue
        inside = points[part]
        values = inside[:, np.argmax(inside.max(0) - inside.min(0))]
        half = _LEAF * (-(-len(part) // _LEAF) // 2)  # so that all leaves but one are full
        order = np.argpartition(values, half)
        parts += [part[order[:half]], part[order[half:]]]
    count, rows = len(done), max(map(len, done))
    filled = np.full((count, rows, points.shape[1]), np.inf, np.float32)
    sums = np.zeros((count, points.shape[1] + 1), np.float32)
    low, high = np.zeros((2, count, points.shape[1]), np.float32)
    for index, part in enumerate(done):
        inside = points[part]
        filled[index, : len(part)] = inside
        low[index], high[index] = inside.min(0), inside.max(0)
        sums[index] = [*inside.sum(0, dtype=np.float64), len(part)]
    return _Leaves(*map(jnp.asarray, (filled.transpose(0, 2, 1), low, high, sums)))


@partial(jax.jit, static_argnums=4)
def _climb(leaves, seeds, bandwidth, max_iter, kernel):
    """(where each seed comes to rest, the kernel's mass there, moves)."""
    reach = (bandwidth * (_REACH if kernel == "gaussian" else 1)) ** 2
    count = len(leaves.points)
    group = min(_LEAVES, count)

    def weighted(points: Array, mean: Array) -> Array:
        """Sum and mass of the points [g, d, rows] within reach."""
        apart = jnp.sum((points - mean[:, None]) ** 2, 1)
        weight = jnp.exp(-apart / (2 * bandwidth**2)) if kernel == "gaussian" else 1.0
        weight = jnp.where(apart <= reach, weight, 0)
        points = jnp.where(jnp.isfinite(points), points, 0)
        sums = jnp.sum(points * weight[:, None], (0, 2))
        return jnp.append(sums, weight.sum())

    def surroundings(mean: Array) -> Array:
        nearest = jnp.sum(
            jnp.maximum(jnp.maximum(leaves.low - mean, mean - leaves.high), 0) ** 2, 1
        )
        farthest = jnp.sum(jnp.maximum(mean - leaves.low, leaves.high - mean) ** 2, 1)
        whole = (farthest <= reach) & (kernel == "flat")
        cut = (nearest <= reach) & ~whole
        places = jnp.nonzero(cut, size=count + group, fill_value=count)[0]

        def look(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            done, total = carry
            chosen = lax.dynamic_slice(places, (done,), (group,))
            points = leaves.points.at[chosen].get(mode="fill", fill_value=jnp.inf)
            return done + group, total + weighted(points, mean)

        total = jnp.sum(jnp.where(whole[:, None], leaves.sums, 0), 0)
        return lax.while_loop(lambda carry: carry[0] < cut.sum(), look, (jnp.int32(0), total))[1]

    def move(carry):
        mean, _, _, done = carry
        total = surroundings(mean)
        new = jnp.where(total[-1] > 0, total[:-1] / total[-1], mean)
        shift = jnp.where(total[-1] > 0, jnp.sqrt(jnp.sum((new - mean) ** 2)), 0)
        return new, total[-1], shift, done + 1

    def climb(seed: Array):
        start = (seed, jnp.float32(0), jnp.float32(jnp.inf), 0)
        mean, mass, _, done = lax.while_loop(
            lambda carry: (carry[2] > _STILL * bandwidth) & (carry[3] < max_iter), move, start
        )
        return mean, mass, done

    return lax.map(climb, seeds)


def _merged(
    modes: Float[np.ndarray, "s d"], mass: Float[np.ndarray, " s"], bandwidth: float
) -> Float[np.ndarray, "k d"]:
    """The densest mode, the densest of those not within a bandwidth of it, and so on."""
    order = np.lexsort((*modes.T[::-1], mass))[::-1]
    left, kept = modes[order], []
    while len(left):
        kept.append(left[0])
        left = left[np.linalg.norm(left - left[0], axis=1) > bandwidth]
    return np.stack(kept)
