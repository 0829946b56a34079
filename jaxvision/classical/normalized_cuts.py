"""Normalised cuts: segments that hang together and hold little to each other.

Shi and Malik, "Normalized Cuts and Image Segmentation", 2000, https://doi.org/10.1109/34.868688;
k at once as in Yu and Shi, "Multiclass Spectral Clustering", 2003,
https://doi.org/10.1109/ICCV.2003.1238361. The graph is of pixels, each joined to those within a
radius, or of regions that touch.
"""

import heapq
import itertools
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxvision.classical.eigenvectors import BLOCK, leading, size_of_basis
from jaxvision.classical.superpixels import touching
from jaxvision.errors import UserError

_EXACT = lax.Precision.HIGHEST
_THRESHOLDS = 16  # of a way of choosing them; see `_bipartition`
_RESIDUAL = 1e-5
_SLOWEST = ((0, 1), (1, 0))
_STEP = 64
_SMALL = 512  # nodes of a part whose matrix is written out


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Graph:
    """Weights between the nodes, symmetric, with 1 of each node with itself.

    Attributes:
      weights: a matrix [m, m] of regions; of pixels [offsets, h, w], 0 across the border.
      radius: up to which pixels are joined; 0 for a matrix.
    """

    weights: Array
    radius: int = field(default=0, metadata={"static": True})

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        size = self.weights.shape
        return size[1] * size[2] if self.radius else size[0]

    def times(self, vectors: Float[Array, "b n"]) -> Float[Array, "b n"]:
        """Products of the weights with vectors."""
        if not self.radius:
            return jnp.matmul(vectors, self.weights, precision=_EXACT)
        _, height, width = self.weights.shape
        reach = self.radius
        maps = vectors.reshape(-1, height, width)
        wide = jnp.pad(maps, ((0, 0), (reach, reach), (reach, reach)))
        total = jnp.zeros_like(maps)
        for weight, (dy, dx) in zip(self.weights, offsets(reach), strict=True):
            top, left = reach + dy, reach + dx
            total += weight * wide[:, top : top + height, left : left + width]
        return total.reshape(vectors.shape)


def offsets(radius: int) -> list[tuple[int, int]]:
    """(down, right) of the pixels within a radius, by row."""
    reach = range(-radius, radius + 1)
    return [(dy, dx) for dy in reach for dx in reach if dy * dy + dx * dx <= radius * radius]


def pixel_graph(
    features: Float[Array | np.ndarray, "h w d"],
    radius: int = 5,
    sigma: float = 0.3,
    sigma_position: float = 4.0,
) -> Graph:
    """exp(-|F_i - F_j|²/sigma²) exp(-|X_i - X_j|²/sigma_position²) of pixels within the radius.

    Args:
      features: of the pixels, such as intensity or colour; position comes from the graph.
      radius: in pixels. Weights take 4 π radius² bytes a pixel.
      sigma: of the features.
      sigma_position: in pixels.

    Raises:
      UserError: an option that is not positive.
    """
    _check(radius=radius, sigma=sigma, sigma_position=sigma_position)
    return Graph(_pixel_weights(jnp.asarray(features), radius, sigma, sigma_position), radius)


@partial(jax.jit, static_argnums=1)
def _pixel_weights(features, radius, sigma, sigma_position):
    margin = (radius, radius)
    wide = jnp.pad(features, (margin, margin, (0, 0)), constant_values=jnp.inf)

    def of_offset(offset: Array) -> Array:
        start = (radius + offset[0], radius + offset[1], 0)
        other = lax.dynamic_slice(wide, start, features.shape)
        apart = jnp.sum((features - other) ** 2, -1) / sigma**2
        return jnp.exp(-apart - jnp.sum(offset**2) / sigma_position**2)

    return lax.map(of_offset, jnp.asarray(offsets(radius)))


def region_graph(
    means: Float[Array | np.ndarray, "m d"],
    labels: Int[Array | np.ndarray, "h w"],
    sigma: float = 0.7,
) -> Graph:
    """exp(-|F_i - F_j|²/sigma²) of regions that touch, by a side or a corner.

    Args:
      means: features of the regions.
      labels: of the regions, 0 to m - 1.
      sigma: of the features.

    Raises:
      UserError: sigma that is not positive.
    """
    _check(sigma=sigma)
    means = jnp.asarray(means, jnp.float32)
    apart = jnp.sum((means[:, None] - means) ** 2, -1)
    joined = touching(labels, len(means)) | jnp.eye(len(means), dtype=bool)
    return Graph(jnp.where(joined, jnp.exp(-apart / sigma**2), 0))


def _check(**values: float | int) -> None:
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name}={value} must be positive.")


class Segments(NamedTuple):
    """A partition of a graph.

    Attributes:
      labels: of the nodes, from 0 on.
      ncut: sum over the segments of cut(segment, rest) / assoc(segment, all).
      values: the two-way cuts' values in the order they were made, or the eigenvalues of
        (D - W) y = λ D y that a k-way cut used.
    """

    labels: Int[np.ndarray, " n"]
    ncut: float
    values: Float[np.ndarray, " c"]


@jax.jit
def ncut_value(graph: Graph, member: Float[Array, "k n"]) -> Float[Array, ""]:
    """Sum over the segments of cut(segment, rest) / assoc(segment, all); 0 for an empty one.

    Args:
      graph: whose nodes are cut.
      member: 1 where a node is in a segment, else 0. Nodes in none count as not there.
    """
    return _ncuts(graph, member, member.sum(0)).sum()


def _ncuts(graph: Graph, member: Array, active: Array) -> Array:
    """cut / assoc of each segment [k] among the active nodes."""
    reached = graph.times(member)
    mass = jnp.sum(reached * active, -1)
    cut = jnp.sum(reached * (active - member), -1)
    return jnp.where(mass > 0, cut / jnp.where(mass > 0, mass, 1), 0)


@partial(jax.jit, static_argnames=("count", "tol"))
def spectrum(graph: Graph, active: Bool[Array, " n"], count: int, tol: float = _RESIDUAL):
    """The smallest eigenvalues and vectors of (D - W) y = λ D y among the active nodes.

    Those are 1 - the largest of D^-1/2 W D^-1/2 and their vectors times D^-1/2.

    Args:
      graph: W.
      active: nodes that are there.
      count: how many.
      tol: residual norm of the symmetric problem's unit vectors.

    Returns:
      (eigenvalues [count] ascending, vectors [count, n] with 0 at other nodes, residuals [count]).
    """
    degree = graph.times(active[None].astype(jnp.float32))[0]
    scale = jnp.where(active, lax.rsqrt(jnp.where(active, degree, 1)), 0)
    if not graph.radius or graph.nodes <= size_of_basis(count):
        weights = graph.times(jnp.eye(graph.nodes))
        matrix = scale[:, None] * weights * scale - jnp.diag(1.0 - active)
        values, vectors = jnp.linalg.eigh(matrix)
        values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count].T
        wrong = jnp.matmul(vectors, matrix, precision=_EXACT) - values[:, None] * vectors
        residuals = jnp.linalg.norm(wrong, axis=-1)
    else:

        def times(block: Array) -> Array:
            return scale * graph.times(scale * block) - jnp.where(active, 0, block)

        _, height, width = graph.weights.shape
        # Eigenvalues lie the closer, the more pixels there are in a row.
        degree_of_filter = max(20, max(height, width) // 8)
        noise = jax.random.normal(jax.random.key(0), (BLOCK, graph.nodes))
        start = jnp.where(active, (_waves(height, width) + noise) * jnp.sqrt(degree), 0)
        values, vectors, residuals = leading(times, start, count, degree_of_filter, tol)
    return 1 - values, vectors * scale, residuals


def _waves(height: int, width: int) -> Float[np.ndarray, "2 n"]:
    """The slowest cosines of an image, near to its smooth eigenvectors."""
    down, right = ((np.arange(length) + 0.5) / length for length in (height, width))
    waves = [np.outer(np.cos(np.pi * p * down), np.cos(np.pi * q * right)) for p, q in _SLOWEST]
    return np.stack(waves).reshape(BLOCK, -1).astype(np.float32)


# -- two at a time --------------------------------------------------------------------------------


@jax.jit
def _bipartition(graph: Graph, active: Array) -> tuple[Array, Array]:
    """(one side, value) of the best cut by a threshold on the second vector.

    Thresholds are evenly spaced in value, as in the paper, and in rank.
    """
    _, vectors, _ = spectrum(graph, active, 2)
    second = vectors[1]
    low = jnp.where(active, second, jnp.inf)
    high = jnp.where(active, second, -jnp.inf)
    part = jnp.arange(_THRESHOLDS) / _THRESHOLDS
    by_value = low.min() + part * (high.max() - low.min())
    ranks = (part * active.sum()).astype(jnp.int32)
    thresholds = jnp.concatenate([by_value, jnp.sort(low)[ranks]])
    sides = active & (second > thresholds[:, None])
    both = jnp.stack([sides, active & ~sides]).astype(jnp.float32)
    values = jax.vmap(lambda one, other: _ncuts(graph, jnp.stack([one, other]), active).sum())
    proper = sides.any(-1) & (active & ~sides).any(-1)
    ncuts = jnp.where(proper, values(*both), jnp.inf)
    best = ncuts.argmin()
    return sides[best], ncuts[best]


def recursive_cut(
    graph: Graph, threshold: float = 0.05, k: int | None = None, smallest: int = 2
) -> Segments:
    """Cuts in two, then the parts, the cheapest cut first.

    Args:
      graph: to cut.
      threshold: a part is left whole if its best cut has a value above this.
      k: the most segments (None: as many as the threshold gives).
      smallest: a part of fewer nodes is left whole.

    Raises:
      UserError: k outside 1 to the number of nodes, or a threshold that is not positive.
    """
    _check(threshold=threshold)
    _check_k(graph, k or 1)
    nodes = np.arange(graph.nodes)
    labels = np.zeros(graph.nodes, np.int32)
    values: list[float] = []
    waiting: list[tuple] = []
    order = itertools.count()  # of equal values the first is cut first

    def propose(part: np.ndarray) -> None:
        if len(part) >= max(smallest, 2):
            side, value = _cut(graph, part)
            if value <= threshold:
                heapq.heappush(waiting, (value, next(order), part, side))

    propose(nodes)
    while waiting and (k is None or len(values) + 1 < k):
        value, _, part, side = heapq.heappop(waiting)
        labels[part[side]] = len(values) + 1
        values.append(value)
        propose(part[~side])
        propose(part[side])
    return _segments(graph, labels, np.asarray(values, np.float32))


def _cut(graph: Graph, part: Int[np.ndarray, " p"]) -> tuple[Bool[np.ndarray, " p"], float]:
    """(which of the part's nodes are on one side, value)."""
    if graph.radius and len(part) > _SMALL:
        active = np.isin(np.arange(graph.nodes), part)
        side, value = _bipartition(graph, jnp.asarray(active))
        return np.asarray(side)[part], float(value)
    size = -(-len(part) // _STEP) * _STEP  # so that few shapes are compiled
    matrix = np.zeros((size, size), np.float32)
    matrix[: len(part), : len(part)] = _matrix(graph, part)
    side, value = _bipartition(Graph(jnp.asarray(matrix)), jnp.arange(size) < len(part))
    return np.asarray(side)[: len(part)], float(value)


def _matrix(graph: Graph, part: Int[np.ndarray, " p"]) -> Float[np.ndarray, "p p"]:
    """The weights among some nodes."""
    weights = np.asarray(graph.weights)
    if not graph.radius:
        return weights[np.ix_(part, part)]
    reach = graph.radius
    number = np.full((2 * reach + 1, 2 * reach + 1), -1)
    for index, (dy, dx) in enumerate(offsets(reach)):
        number[reach + dy, reach + dx] = index
    rows, columns = np.divmod(part, weights.shape[2])
    down, right = rows - rows[:, None], columns - columns[:, None]
    near = np.maximum(np.abs(down), np.abs(right)) <= reach
    down, right = (np.where(near, apart, 0) for apart in (down, right))
    which = np.where(near, number[reach + down, reach + right], -1)
    found = weights[which, rows[:, None], columns[:, None]]
    return np.where(which >= 0, found, 0)


# -- k at once ------------------------------------------------------------------------------------


def k_way_cut(graph: Graph, k: int, tol: float = _RESIDUAL) -> Segments:
    """k segments from k eigenvectors, by the rotation that brings them nearest to indicators.

    Args:
      graph: to cut.
      k: number of segments; some can stay empty where the graph has fewer.
      tol: residual norm of the eigenvectors.

    Raises:
      UserError: k outside 1 to the number of nodes.
    """
    _check_k(graph, k)
    values, vectors, _ = spectrum(graph, jnp.ones(graph.nodes, bool), k, tol)
    return _segments(graph, np.asarray(discretised(vectors.T)), np.asarray(values))


@jax.jit
def discretised(vectors: Float[Array, "n k"]) -> Int[Array, " n"]:
    """Yu and Shi's alternation between labels and the rotation."""
    count, k = vectors.shape
    norm = jnp.linalg.norm(vectors, axis=1, keepdims=True)
    rows = vectors / jnp.where(norm > 0, norm, 1)

    def pick(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        """The row least like those that are chosen already."""
        rotation, like = carry
        like += jnp.abs(jnp.matmul(rows, rotation[:, index - 1], precision=_EXACT))
        return rotation.at[:, index].set(rows[like.argmin()]), like

    first = jnp.zeros((k, k)).at[:, 0].set(rows[count // 2])
    rotation, _ = lax.fori_loop(1, k, pick, (first, jnp.zeros(count)))

    def turn(carry):
        rotation, fit, _, done = carry
        labels = jnp.matmul(rows, rotation, precision=_EXACT).argmax(-1)
        member = (labels[:, None] == jnp.arange(k)).astype(jnp.float32)
        left, strength, right = jnp.linalg.svd(jnp.matmul(member.T, rows, precision=_EXACT))
        new = jnp.matmul(left, right, precision=_EXACT).T
        return new, strength.sum(), jnp.abs(strength.sum() - fit), done + 1

    start = (rotation, jnp.float32(0), jnp.float32(jnp.inf), 0)
    rotation, *_ = lax.while_loop(
        lambda carry: (carry[2] > 1e-6 * count) & (carry[3] < 50), turn, start
    )
    return jnp.matmul(rows, rotation, precision=_EXACT).argmax(-1).astype(jnp.int32)


def _check_k(graph: Graph, k: int) -> None:
    if not 1 <= k <= graph.nodes:
        raise UserError(f"k={k} segments of {graph.nodes} nodes; k is from 1 to {graph.nodes}.")


def _segments(graph: Graph, labels: Int[np.ndarray, " n"], values: np.ndarray) -> Segments:
    found, labels = np.unique(labels, return_inverse=True)
    member = (labels == np.arange(len(found))[:, None]).astype(np.float32)
    return Segments(labels.astype(np.int32), float(ncut_value(graph, jnp.asarray(member))), values)
