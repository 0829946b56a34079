"""k-means clustering.

Lloyd, "Least Squares Quantization in PCM", 1982, https://doi.org/10.1109/TIT.1982.1056489; starts
by k-means++ of Arthur and Vassilvitskii 2007, https://dl.acm.org/doi/10.5555/1283383.1283494.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Num

from jaxvision.errors import UserError, unknown

INITS = ("k-means++", "random")
RULES = ("max_iter", "labels", "centers", "objective")  # what ends a run, by number

_BLOCK = 4096  # points compared with all centres at a time
_EXACT = lax.Precision.HIGHEST


class KMeans(NamedTuple):
    """Clusters.

    Attributes:
      centers: their means.
      labels: each point's nearest centre.
      inertia: sum of the squared distances of the points to their centres.
      iterations: of Lloyd's algorithm, of the start that won.
      stopped: which of `RULES` ended it.
    """

    centers: Float[Array, "k d"]
    labels: Int[Array, " n"]
    inertia: float
    iterations: int
    stopped: str = "max_iter"


def kmeans(
    points: Float[Array | np.ndarray, "n d"],
    k: int,
    *,
    seed: int = 0,
    init: str = "k-means++",
    starts: Float[Array | np.ndarray, "k d"] | None = None,
    n_init: int = 1,
    max_iter: int = 300,
    tol: float = 1e-4,
    max_changes: float = 0.0,
    objective_tol: float = 0.0,
) -> KMeans:
    """The best of `n_init` runs of Lloyd's algorithm.

    From the same start the result is that of `sklearn.cluster.KMeans`. A cluster that has become
    empty takes the point that is farthest from its own centre. A run ends by the first rule that
    holds; with the last three at 0 it goes on until nothing changes any more.

    Args:
      points: what to cluster.
      k: number of clusters.
      seed: of the starts.
      init: `k-means++`, or `random`: points drawn uniformly without replacement.
      starts: first centres instead of drawn ones; then there is one run.
      n_init: how many runs, of which that of the least inertia is given.
      max_iter: iterations of a run at most.
      tol: a run ends where the centres' squared shifts sum to no more than `tol` times the mean
        variance of the coordinates.
      max_changes: a run ends where no more than this share of the points changes its label.
      objective_tol: a run ends where an iteration lowers the inertia by less than this share of it.

    Raises:
      UserError: k outside 1 to n, starts of another shape, points that are not finite, or an
        option outside its range.
    """
    if not 1 <= k <= len(points):
        raise UserError(f"k={k} clusters of {len(points)} points; k is from 1 to {len(points)}.")
    if starts is not None and starts.shape != (k, points.shape[1]):
        raise UserError(f"Starts are {list(starts.shape)}, not {[k, points.shape[1]]}.")
    if n_init < 1 or max_iter < 1:
        raise UserError(f"n_init={n_init} and max_iter={max_iter} must be at least 1.")
    if init not in INITS:
        raise unknown("init", init, INITS)
    for name, value in (("tol", tol), ("objective_tol", objective_tol)):
        if not value >= 0:
            raise UserError(f"{name}={value} must be at least 0.")
    if not 0 <= max_changes <= 1:
        raise UserError(f"max_changes={max_changes} is a share of the points, from 0 to 1.")
    points = jnp.asarray(points, jnp.float32)
    if not jnp.isfinite(points).all():
        raise UserError("Points must be finite; some are NaN or infinite.")
    centre = points.mean(0)  # the origin, for the rounding's sake
    blocks, real = in_blocks(points - centre)
    most_shift = tol * jnp.var(points, 0).mean()
    limits = (max_iter, int(max_changes * len(points)), objective_tol, most_shift)
    if starts is not None:
        best = _lloyd(blocks, real, jnp.asarray(starts, jnp.float32) - centre, limits)
    else:
        draw = _plus_plus if init == "k-means++" else _random
        best = None
        for key in jax.random.split(jax.random.key(seed), n_init):
            run = _lloyd(blocks, real, draw(blocks, real, key, k), limits)
            best = run if best is None or run[2] < best[2] else best
    centers, labels, inertia, iterations, rule = best
    return KMeans(
        centers + centre, labels[: len(points)], float(inertia), int(iterations), RULES[int(rule)]
    )


@jax.jit
def in_blocks(points: Array) -> tuple[Array, Array]:
    """(points [blocks, d, rows], which of them are real [blocks, rows]).

    Points run along the last axis: what is computed of each is then computed of many at once.
    """
    count, dimensions = points.shape
    rows = min(_BLOCK, count)
    missing = -count % rows
    real = jnp.arange(count + missing) < count
    points = jnp.pad(points, ((0, missing), (0, 0)))
    blocks = points.reshape(-1, rows, dimensions).transpose(0, 2, 1)
    return blocks, real.reshape(-1, rows)


def _squared(points: Float[Array, "d n"], centers: Float[Array, "k d"]) -> Float[Array, "k n"]:
    """Squared distances less the points' squared norms, which do not change what is nearest."""
    product = jnp.matmul(centers, points, precision=_EXACT)
    return jnp.sum(centers**2, -1)[:, None] - 2 * product


def _nearest(points: Float[Array, "d n"], centers: Float[Array, "k d"]) -> tuple[Array, Array]:
    """(labels, `_squared` of theirs); of equals the first. XLA's argmin on CPUs is far slower."""
    squared = _squared(points, centers)
    least = squared.min(0)
    number = jnp.arange(len(centers), dtype=jnp.int32)[:, None]
    return jnp.where(squared == least, number, len(centers) - 1).min(0), least


@jax.jit
def _assign(blocks: Array, centers: Array) -> Array:
    """The nearest centre of every point [blocks * rows]; of equals the first."""
    return lax.map(lambda points: _nearest(points, centers)[0], blocks).ravel()


def assign(
    points: Num[Array | np.ndarray, "n d"], centers: Float[Array | np.ndarray, "k d"]
) -> Int[Array, " n"]:
    """The nearest centre of each point, by the Euclidean distance; of equals the first."""
    if len(points) == 0:
        return jnp.zeros(0, jnp.int32)
    origin = jnp.mean(centers, 0)
    blocks, _ = in_blocks(jnp.asarray(points, jnp.float32) - origin)
    return _assign(blocks, jnp.asarray(centers, jnp.float32) - origin)[: len(points)]


@partial(jax.jit, static_argnums=3)
def _random(blocks: Array, real: Array, key: Array, k: int) -> Array:
    """k different points."""
    chosen = lax.top_k(jnp.where(real.ravel(), jax.random.uniform(key, (real.size,)), -1), k)[1]
    return blocks[chosen // real.shape[1], :, chosen % real.shape[1]]


@partial(jax.jit, static_argnums=3)
def _plus_plus(blocks: Array, real: Array, key: Array, k: int) -> Array:
    """k points, each drawn by its squared distance to those before; the best of a few draws."""
    points, real = blocks.transpose(1, 0, 2).reshape(blocks.shape[1], -1), real.ravel()
    norms = jnp.sum(points**2, 0)
    trials = 2 + int(math.log(k))
    first_key, key = jax.random.split(key)
    first = points[:, jax.random.categorical(first_key, jnp.where(real, 0.0, -jnp.inf))]

    def distances(candidates: Array) -> Array:
        squared = jnp.maximum(_squared(points, candidates) + norms, 0)
        return jnp.where(real, squared, 0)

    def draw(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centers, closest = carry
        total = jnp.cumsum(closest)
        at = jax.random.uniform(jax.random.fold_in(key, index), (trials,)) * total[-1]
        chosen = jnp.minimum(jnp.searchsorted(total, at, side="right"), real.sum() - 1)
        candidates = points[:, chosen].T
        closer = jnp.minimum(closest, distances(candidates))
        best = closer.sum(-1).argmin()
        return centers.at[index].set(candidates[best]), closer[best]

    centers = jnp.zeros((k, len(points))).at[0].set(first)
    return lax.fori_loop(1, k, draw, (centers, distances(first[None])[0]))[0]


@jax.jit
def _lloyd(blocks, real, centers, limits):
    """(centers, labels, inertia, iterations, which of `RULES` ended it)."""
    k, dimensions = centers.shape
    max_iter, max_changes, objective_tol, max_shift = limits

    def add(centers: Array, sums: Array, part: tuple) -> tuple[Array, tuple]:
        points, real = part
        labels, least = _nearest(points, centers)
        # As a product: XLA's scatter on CPUs adds one point at a time.
        member = (labels == jnp.arange(k)[:, None]) & real
        ones = jnp.ones((1, points.shape[1]))
        extended = jnp.concatenate([points, ones])
        sums += jnp.matmul(member.astype(jnp.float32), extended.T, precision=_EXACT)
        away = jnp.where(real, jnp.maximum(least + jnp.sum(points**2, 0), 0), -jnp.inf)
        return sums, (labels, away)

    def step(carry):
        centers, labels, objective, _, done = carry
        zero = jnp.zeros((k, dimensions + 1))
        sums, (found, away) = lax.scan(partial(add, centers), zero, (blocks, real))
        sums, counts = sums[:, :-1], sums[:, -1]
        sums, counts = lax.cond(
            (counts == 0).any(), _fill_empty, lambda s, c, *_: (s, c), sums, counts, found, away,
            blocks,
        )  # fmt: skip
        new = jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], centers)
        now = jnp.where(real, away, 0).sum()
        rules = jnp.stack(
            [
                jnp.sum((found != labels) & real) <= max_changes,
                jnp.sum((new - centers) ** 2) <= max_shift,
                objective - now < objective_tol * objective,
            ]
        )
        return new, found, now, jnp.where(rules.any(), rules.argmax() + 1, 0), done + 1

    nowhere = jnp.full(real.shape, -1, jnp.int32)
    start = (centers, nowhere, jnp.float32(jnp.inf), 0, 0)
    centers, _, _, rule, done = lax.while_loop(
        lambda carry: (carry[-1] < max_iter) & (carry[-2] == 0), step, start
    )

    def remaining(part: tuple[Array, Array]) -> tuple[Array, Array]:
        points, real = part
        labels, _ = _nearest(points, centers)
        away = jnp.sum((points - centers[labels].T) ** 2, 0)
        return labels, jnp.sum(jnp.where(real, away, 0))

    labels, inertia = lax.map(remaining, (blocks, real))
    return centers, labels.ravel(), inertia.sum(), done, rule


def _fill_empty(sums, counts, labels, away, blocks):
    """Moves the farthest points, one each, out of their clusters and into the empty ones."""
    k = len(counts)
    points = blocks.transpose(0, 2, 1).reshape(-1, blocks.shape[1])
    labels, away = labels.ravel(), away.ravel()
    _, farthest = lax.top_k(away, min(k, len(away)))
    empty = jnp.argsort(counts != 0, stable=True)  # the empty ones first
    number = jnp.sum(counts == 0)

    def move(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        sums, counts = carry
        place = farthest[index]
        old, new, point = labels[place], empty[index], points[place]
        sums = sums.at[old].add(-point).at[new].set(point)
        return sums, counts.at[old].add(-1).at[new].set(1)

    return lax.fori_loop(0, number, move, (sums, counts))


def kmeans_of_shapes(
    shapes: Float[np.ndarray, "n 2"],
    k: int,
    *,
    seed: int = 0,
    n_init: int = 10,
    max_iter: int = 100,
) -> tuple[Float[np.ndarray, "k 2"], float]:
    """Shapes that rectangles overlap most with: k-means whose distance is 1 - IoU.

    So a small rectangle counts as much as a large one. Redmon and Farhadi, YOLO9000, 2016,
    https://arxiv.org/abs/1612.08242, section 2: how YOLO v2 and v3 choose their anchors.

    Args:
      shapes: (width, height) of the rectangles, above 0.
      k: number of clusters.
      seed: of the starts.
      n_init: how many runs, of which the best is given.
      max_iter: iterations of a run at most.

    Returns:
      The means of the clusters, from the smallest area on, and the mean IoU of the rectangles with
      the best of them.

    Raises:
      UserError: fewer than k different shapes, or some that are not finite and above 0.
    """
    if not (np.isfinite(shapes) & (shapes > 0)).all():
        raise UserError("Widths and heights of rectangles must be finite and above 0.")
    different = len(np.unique(shapes, axis=0))
    if not 1 <= k <= different:
        raise UserError(f"k={k} clusters of {different} different shapes; k is from 1 to that.")
    rng, points = np.random.default_rng(seed), shapes.astype(np.float64)

    def run() -> tuple[np.ndarray, float]:
        centers = points[rng.integers(len(points))][None]
        while len(centers) < k:
            distance = 1 - _shape_overlaps(points, centers).max(1)
            chance = np.maximum(distance, 0) ** 2  # that a shape is near itself is rounded
            chance[distance < 1e-9] = 0
            centers = np.vstack([centers, points[rng.choice(len(points), p=chance / chance.sum())]])
        labels = np.full(len(points), -1)
        for _ in range(max_iter):
            before, labels = labels, _shape_overlaps(points, centers).argmax(1)
            if (labels == before).all():
                break
            counts = np.bincount(labels, minlength=k)[:, None]
            sums = np.stack([np.bincount(labels, axis, k) for axis in points.T], 1)
            centers = np.where(counts > 0, sums / np.maximum(counts, 1), centers)
        return centers, float(_shape_overlaps(points, centers).max(1).mean())

    centers, overlap = max((run() for _ in range(n_init)), key=lambda found: found[1])
    return centers[np.argsort(centers.prod(1), kind="stable")].astype(shapes.dtype), overlap


def _shape_overlaps(
    shapes: Float[np.ndarray, "n 2"], centers: Float[np.ndarray, "k 2"]
) -> Float[np.ndarray, "n k"]:
    """IoU of rectangles about the same centre."""
    shared = np.minimum(shapes[:, None], centers).prod(-1)
    return shared / (shapes.prod(-1)[:, None] + centers.prod(-1) - shared)
