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

from jaxvision.errors import UserError

_BLOCK = 8192  # points compared with all centres at a time


class KMeans(NamedTuple):
    """Clusters.

    Attributes:
      centers: their means.
      labels: each point's nearest centre.
      inertia: sum of the squared distances of the points to their centres.
      iterations: of Lloyd's algorithm, of the start that won.
    """

    centers: Float[Array, "k d"]
    labels: Int[Array, "n"]
    inertia: float
    iterations: int


def kmeans(
    points: Float[Array | np.ndarray, "n d"],
    k: int,
    *,
    seed: int = 0,
    starts: Float[Array | np.ndarray, "k d"] | None = None,
    n_init: int = 1,
    max_iter: int = 300,
    tol: float = 1e-4,
) -> KMeans:
    """The best of `n_init` runs of Lloyd's algorithm.

    From the same start the result is that of `sklearn.cluster.KMeans`. A cluster that has become
    empty takes the point that is farthest from its own centre.

    Args:
      points: what to cluster.
      k: number of clusters.
      seed: of the k-means++ starts.
      starts: first centres instead of k-means++; then there is one run.
      n_init: how many runs, of which that of the least inertia is given.
      max_iter: iterations of a run at most.
      tol: a run ends where the centres' squared shifts sum to less than `tol` times the mean
        variance of the coordinates, or where no label changes.

    Raises:
      UserError: k outside 1 to n, or starts of another shape.
    """
    if not 1 <= k <= len(points):
        raise UserError(f"k={k} clusters of {len(points)} points; k is from 1 to {len(points)}.")
    if starts is not None and starts.shape != (k, points.shape[1]):
        raise UserError(f"Starts are {list(starts.shape)}, not {[k, points.shape[1]]}.")
    if n_init < 1 or max_iter < 1:
        raise UserError(f"n_init={n_init} and max_iter={max_iter} must be at least 1.")
    points = jnp.asarray(points, jnp.float32)
    centre = points.mean(0)  # the origin, for the rounding's sake
    blocks, real = _blocks(points - centre)
    limit = tol * jnp.var(points, 0).mean()
    if starts is not None:
        best = _lloyd(blocks, real, jnp.asarray(starts, jnp.float32) - centre, limit, max_iter)
    else:
        best = None
        for key in jax.random.split(jax.random.key(seed), n_init):
            run = _lloyd(blocks, real, _plus_plus(blocks, real, key, k), limit, max_iter)
            best = run if best is None or run[2] < best[2] else best
    centers, labels, inertia, iterations = best
    return KMeans(centers + centre, labels[: len(points)], float(inertia), int(iterations))


@jax.jit
def _blocks(points: Array) -> tuple[Array, Array]:
    """(points [blocks, rows, d], which of them are real)."""
    count, dimensions = points.shape
    rows = min(_BLOCK, count)
    missing = -count % rows
    real = jnp.arange(count + missing) < count
    points = jnp.pad(points, ((0, missing), (0, 0)))
    return points.reshape(-1, rows, dimensions), real.reshape(-1, rows)


def _squared(points: Array, centers: Array) -> Float[Array, "n k"]:
    """Squared distances less the points' squared norms, which do not change what is nearest."""
    product = jnp.matmul(points, centers.T, precision=lax.Precision.HIGHEST)
    return jnp.sum(centers**2, -1) - 2 * product


@jax.jit
def _assign(blocks: Array, centers: Array) -> Array:
    """The nearest centre of every point [blocks * rows]; of equals the first."""
    nearest = lambda points: _squared(points, centers).argmin(-1)  # noqa: E731
    return lax.map(nearest, blocks).ravel().astype(jnp.int32)


def assign(
    points: Num[Array | np.ndarray, "n d"], centers: Float[Array | np.ndarray, "k d"]
) -> Int[Array, "n"]:
    """The nearest centre of each point, by the Euclidean distance; of equals the first."""
    if len(points) == 0:
        return jnp.zeros(0, jnp.int32)
    origin = jnp.mean(centers, 0)
    blocks, _ = _blocks(jnp.asarray(points, jnp.float32) - origin)
    return _assign(blocks, jnp.asarray(centers, jnp.float32) - origin)[: len(points)]


@partial(jax.jit, static_argnums=3)
def _plus_plus(blocks: Array, real: Array, key: Array, k: int) -> Array:
    """k points, each drawn by its squared distance to those before; the best of a few draws."""
    points, real = blocks.reshape(-1, blocks.shape[-1]), real.ravel()
    norms = jnp.sum(points**2, -1)
    trials = 2 + int(math.log(k))
    first_key, key = jax.random.split(key)
    first = points[jax.random.categorical(first_key, jnp.where(real, 0.0, -jnp.inf))]

    def distances(candidates: Array) -> Array:
        squared = jnp.maximum(_squared(points, candidates).T + norms, 0)
        return jnp.where(real, squared, 0)

    def draw(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centers, closest = carry
        total = jnp.cumsum(closest)
        at = jax.random.uniform(jax.random.fold_in(key, index), (trials,)) * total[-1]
        chosen = jnp.minimum(jnp.searchsorted(total, at, side="right"), real.sum() - 1)
        candidates = points[chosen]
        closer = jnp.minimum(closest, distances(candidates))
        best = closer.sum(-1).argmin()
        return centers.at[index].set(candidates[best]), closer[best]

    centers = jnp.zeros((k, points.shape[1])).at[0].set(first)
    return lax.fori_loop(1, k, draw, (centers, distances(first[None])[0]))[0]


@jax.jit
def _lloyd(blocks, real, centers, limit, max_iter):
    """(centers, labels, inertia, iterations)."""
    k = len(centers)

    def add(centers: Array, carry: tuple, part: tuple) -> tuple[tuple, tuple]:
        sums, counts = carry
        points, real = part
        squared = _squared(points, centers)
        labels = squared.argmin(-1)
        # As a product: XLA's scatter on CPUs adds one point at a time.
        member = jax.nn.one_hot(labels, k) * real[:, None]
        sums += jnp.matmul(member.T, points, precision=lax.Precision.HIGHEST)
        away = jnp.where(real, squared.min(-1) + jnp.sum(points**2, -1), -jnp.inf)
        return (sums, counts + member.sum(0)), (labels, away)

    def move(centers: Array) -> tuple[Array, Array]:
        zero = (jnp.zeros_like(centers), jnp.zeros(k))
        scan = partial(add, centers)
        (sums, counts), (labels, away) = lax.scan(scan, zero, (blocks, real))
        sums, counts = lax.cond(
            (counts == 0).any(), _fill_empty, lambda s, c, *_: (s, c), sums, counts, labels, away,
            blocks,
        )  # fmt: skip
        new = jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], centers)
        return new, labels

    def step(carry):
        centers, labels, _, _, done = carry
        new, found = move(centers)
        shift = jnp.sum((new - centers) ** 2)
        return new, found, jnp.all(found == labels), shift, done + 1

    def unfinished(carry):
        *_, same, shift, done = carry
        return (done < max_iter) & ~same & (shift > limit)

    nowhere = jnp.full(blocks.shape[:2], -1, jnp.int32)
    start = (centers, nowhere, jnp.array(False), jnp.inf, 0)
    centers, _, _, _, done = lax.while_loop(unfinished, step, start)

    def remaining(part: tuple[Array, Array]) -> tuple[Array, Array]:
        points, real = part
        labels = _squared(points, centers).argmin(-1).astype(jnp.int32)
        away = jnp.sum((points - centers[labels]) ** 2, -1)
        return labels, jnp.sum(jnp.where(real, away, 0))

    labels, inertia = lax.map(remaining, (blocks, real))
    return centers, labels.ravel(), inertia.sum(), done


def _fill_empty(sums, counts, labels, away, blocks):
    """Moves the farthest points, one each, out of their clusters and into the empty ones."""
    k = len(counts)
    points, labels, away = blocks.reshape(-1, blocks.shape[-1]), labels.ravel(), away.ravel()
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
