"""Nearest neighbours by exhaustive search in blocks, and the vote among them.

Cover and Hart, "Nearest Neighbor Pattern Classification", 1967,
https://doi.org/10.1109/TIT.1967.1053964
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxvision.errors import UserError, unknown

METRICS = ("l1", "l2", "cosine")
WEIGHTS = ("uniform", "distance")

# Candidates beyond k that the matrix product proposes; their distances are computed again exactly,
# which puts right the order among those that its rounding cannot tell apart.
_SLACK = 16
_DIMENSIONS = 16  # of an L1 distance that one pass over the block adds up


def nearest_neighbours(
    queries: Float[Array | np.ndarray, "q d"],
    keys: Float[Array | np.ndarray, "n d"],
    k: int,
    metric: str = "l2",
    *,
    block: int = 0,
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """The k keys nearest to each query, nearest first; of equals the first key comes first.

    Args:
      queries: what to look for.
      keys: where to look.
      k: how many.
      metric: `l1` (sum of absolute differences), `l2` (Euclidean) or `cosine` (1 - cosine; 1 where
        a vector is zero).
      block: queries and keys that are compared at a time; temporaries take a few times block^2
        numbers, whatever q and n. 0: 512 for `l1`, whose blocks stay in the cache, else 4096.

    Returns:
      (distances, indices into `keys`).

    Raises:
      UserError: unknown metric, k outside 1 to n, or vectors of different lengths.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if queries.shape[1] != keys.shape[1]:
        raise UserError(f"Queries have {queries.shape[1]} dimensions, keys {keys.shape[1]}.")
    if not 1 <= k <= len(keys):
        raise UserError(f"k={k} neighbours of {len(keys)} keys; k is from 1 to {len(keys)}.")
    block = block or (512 if metric == "l1" else 4096)
    block_q, block_k = _even(len(queries), block), _even(len(keys), block)
    search = _search_l1 if metric == "l1" else _search_product
    keys = jnp.asarray(keys, jnp.float32)
    prepared = _blocks_of_keys(keys, block_k, metric)
    found = []
    for start in range(0, len(queries), block_q):
        part = jnp.asarray(queries[start : start + block_q], jnp.float32)
        rows = len(part)
        part = jnp.pad(part, ((0, block_q - rows), (0, 0)))  # so that one shape is compiled
        distances, indices = search(part, keys, prepared, k, metric)
        found.append((distances[:rows], indices[:rows]))
    if not found:
        return jnp.zeros((0, k)), jnp.zeros((0, k), jnp.int32)
    distances, indices = (jnp.concatenate(parts) for parts in zip(*found))
    return distances, indices


def _even(count: int, block: int) -> int:
    """The size of blocks of at most `block` that leaves least of the last one empty."""
    return max(-(-count // max(-(-count // block), 1)), 1)


def _unit(x: Array) -> Array:
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(norm == 0, 1, norm)


@partial(jax.jit, static_argnums=(1, 2))
def _blocks_of_keys(keys: Array, block: int, metric: str) -> tuple[Array, Array, Array]:
    """(centre [d], keys transposed [blocks, d, block], bias [blocks, block]: inf past the end)."""
    count, dimensions = keys.shape
    centre = jnp.zeros(dimensions)
    if metric == "cosine":
        keys = _unit(keys)
    elif metric == "l2":  # which moving the origin does not change, but for the rounding
        centre = keys.mean(0)
        keys = keys - centre
    bias = jnp.sum(keys**2, -1) if metric == "l2" else jnp.zeros(count)
    blocks = -(-count // block)
    missing = blocks * block - count
    bias = jnp.pad(bias, (0, missing), constant_values=jnp.inf).reshape(blocks, block)
    keys = jnp.pad(keys, ((0, missing), (0, 0))).reshape(blocks, block, dimensions)
    return centre, keys.transpose(0, 2, 1), bias


def _smallest(distances_of, keys: Array, bias: Array, rows: int, k: int) -> tuple[Array, Array]:
    """The k smallest over all blocks of keys, by a list that each block is merged into."""
    block = keys.shape[-1]

    def merge(best: tuple[Array, Array], part: tuple) -> tuple[tuple[Array, Array], None]:
        number, keys, bias = part
        negative, indices = lax.top_k(-distances_of(keys, bias), min(k, block))
        values = jnp.concatenate([best[0], negative], -1)
        places = jnp.concatenate([best[1], indices + number * block], -1)
        values, chosen = lax.top_k(values, k)  # the first of equals: those of earlier blocks
        return (values, jnp.take_along_axis(places, chosen, -1)), None

    empty = (jnp.full((rows, k), -jnp.inf), jnp.zeros((rows, k), jnp.int32))
    parts = (jnp.arange(len(keys), dtype=jnp.int32), keys, bias)
    (negative, places), _ = lax.scan(merge, empty, parts)
    return -negative, places


@partial(jax.jit, static_argnums=(3, 4))
def _search_product(
    queries: Array, keys: Array, prepared: tuple[Array, Array, Array], k: int, metric: str
) -> tuple[Array, Array]:
    """Squared L2 distances and cosines by matrix products; then the best exactly."""
    centre, transposed, bias = prepared
    moved = _unit(queries) if metric == "cosine" else queries - centre
    scale = 1 if metric == "cosine" else 2

    def compare(keys: Array, bias: Array) -> Array:
        return bias - scale * jnp.matmul(moved, keys, precision=lax.Precision.HIGHEST)

    wide = min(k + _SLACK, len(keys))
    _, places = _smallest(compare, transposed, bias, len(queries), wide)
    # In the order of the keys, so that the stable sort leaves the first of equals first.
    places = jnp.sort(places, -1)

    def exactly(item: tuple[Array, Array]) -> tuple[Array, Array]:
        query, places = item
        near = keys[places]
        if metric == "cosine":
            zero = ~jnp.any(near, -1) | ~jnp.any(query)
            half = jnp.sum((_unit(near) - _unit(query)) ** 2, -1) / 2
            distances = jnp.where(zero, 1.0, half)
        else:
            distances = jnp.sqrt(jnp.sum((near - query) ** 2, -1))
        order = jnp.argsort(distances, stable=True)[:k]
        return distances[order], places[order]

    return lax.map(exactly, (queries, places), batch_size=min(len(queries), 128))


@partial(jax.jit, static_argnums=(3, 4))
def _search_l1(
    queries: Array, keys: Array, prepared: tuple[Array, Array, Array], k: int, metric: str
) -> tuple[Array, Array]:
    _, transposed, bias = prepared

    def compare(keys: Array, bias: Array) -> Array:
        return bias + pairwise_l1(queries, keys)

    return _smallest(compare, transposed, bias, len(queries), k)


def pairwise_l1(a: Float[Array, "n d"], b: Float[Array, "d m"]) -> Float[Array, "n m"]:
    """Sums of absolute differences, without a temporary of n x m x d numbers."""
    dimensions = a.shape[1]
    a, b = (jnp.pad(x, p) for x, p in _to_whole_passes(a, b))

    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        of_a, of_b = part
        terms = (jnp.abs(x[:, None] - y) for x, y in zip(of_a, of_b))
        return total + sum(terms), None

    passes = -(-dimensions // _DIMENSIONS)
    parts = (a.T.reshape(passes, _DIMENSIONS, -1), b.reshape(passes, _DIMENSIONS, -1))
    return lax.scan(add, jnp.zeros((a.shape[0], b.shape[1])), parts)[0]


def _to_whole_passes(a: Array, b: Array):
    missing = -a.shape[1] % _DIMENSIONS
    return (a, ((0, 0), (0, missing))), (b, ((0, missing), (0, 0)))


def vote(
    labels: Int[Array, "q k"],
    distances: Float[Array, "q k"],
    num_classes: int,
    weights: str = "uniform",
) -> Int[Array, " q"]:
    """The class with most votes of each row's neighbours; of equals the smallest class.

    Args:
      labels: classes of the neighbours, 0 to `num_classes` - 1.
      distances: of the neighbours.
      weights: `uniform`, or `distance`: a vote counts 1 / distance, and where neighbours are at
        distance 0 those alone vote.

    Raises:
      UserError: unknown weights.
    """
    if weights not in WEIGHTS:
        raise unknown("weights", weights, WEIGHTS)
    if weights == "uniform":
        votes = jnp.ones(labels.shape)
    else:
        same = distances == 0
        inverse = 1 / jnp.where(same, 1, distances)
        votes = jnp.where(same.any(-1, keepdims=True), same.astype(jnp.float32), inverse)
    tally = jnp.sum(jax.nn.one_hot(labels, num_classes) * votes[..., None], -2)
    return tally.argmax(-1).astype(jnp.int32)
