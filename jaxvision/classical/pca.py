"""Principal components: the directions in which points vary most.

Pearson 1901, https://doi.org/10.1080/14786440109462720; Hotelling 1933. Incrementally after Ross et
al., Incremental Learning for Robust Visual Tracking, 2008,
https://doi.org/10.1007/s11263-007-0075-7. The numbers are those of `sklearn.decomposition.PCA` and
`IncrementalPCA`, signs included. A linear autoencoder that is trained to its minimum spans the same
directions (Baldi and Hornik 1989, https://doi.org/10.1016/0893-6080(89)90014-2).
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxvision.errors import UserError

_EXACT = lax.Precision.HIGHEST
Points = Float[Array | np.ndarray, "n d"]


class Pca(NamedTuple):
    """The leading principal components of points.

    Attributes:
      mean: of the points.
      components: orthonormal directions, of the largest variance first. Of each the entry of the
        largest absolute value is positive.
      variance: of the points along each, unbiased.
      ratio: of these to the variance in all directions.
      singular_values: of the centred points.
      noise_variance: the mean variance in each direction that is left out.
      total: the variance in all directions.
      samples: how many points.
    """

    mean: Float[Array, " d"]
    components: Float[Array, "k d"]
    variance: Float[Array, " k"]
    ratio: Float[Array, " k"]
    singular_values: Float[Array, " k"]
    noise_variance: float
    total: float
    samples: int


def pca(points: Points, components: int | float | None = None) -> Pca:
    """The principal components of points in memory.

    Args:
      points: two or more; computed in float32.
      components: how many; below 1, as many as have this part of the variance; None is all.

    Raises:
      UserError: there are fewer, or fewer than two points.
    """
    found = jnp.asarray(points, jnp.float32)
    _check_points(found)
    mean = found.mean(0)
    values, directions = _directions(found - mean)
    most, variance = len(values), jnp.square(values) / (len(found) - 1)
    total = float(variance.sum())
    if components is None:
        kept = most
    elif isinstance(components, float) and 0 < components < 1:
        shares = np.cumsum(np.asarray(variance, np.float64)) / total
        kept = min(int(np.searchsorted(shares, components, side="right")) + 1, most)
    else:
        kept = _checked(components, most)
    rest = float(variance[kept:].mean()) if kept < most else 0.0
    return Pca(
        mean,
        directions[:kept],
        variance[:kept],
        variance[:kept] / total,
        values[:kept],
        rest,
        total,
        len(found),
    )


def incremental_pca(batches: Iterable[Float[Array | np.ndarray, "_ d"]], components: int) -> Pca:
    """Nearly the principal components of points that are seen batch by batch, each once.

    Args:
      batches: each of at least `components` points.
      components: how many.

    Raises:
      UserError: there is no batch, or one has fewer points or other dimensions.
    """
    found: Pca | None = None
    for points in batches:
        found = update(found, points, components)
    if found is None:
        raise UserError("Incremental PCA was given no batch of points.")
    return found


def update(before: Pca | None, points: Points, components: int) -> Pca:
    """The components of what was seen before and of more points.

    Args:
      before: of the points so far; None where these are the first.
      points: at least `components`.
      components: how many are kept.

    Raises:
      UserError: there are fewer points, or they have other dimensions than those before.
    """
    new = jnp.asarray(points, jnp.float32)
    _check_points(new)
    _checked(components, min(new.shape))
    mean, count = new.mean(0), len(new)
    rows, squares = new - mean, jnp.square(new - mean).sum()
    if before is not None:
        if new.shape[1] != len(before.mean):
            raise UserError(
                f"Points have {new.shape[1]} dimensions; those before had {len(before.mean)}."
            )
        shift = before.mean - mean
        weight = before.samples * count / (before.samples + count)
        rows = jnp.concatenate(
            [
                before.singular_values[:, None] * before.components,
                rows,
                math.sqrt(weight) * shift[None],
            ]
        )
        squares += before.total * (before.samples - 1) + weight * jnp.square(shift).sum()
        mean = (before.samples * before.mean + count * mean) / (before.samples + count)
        count += before.samples
    values, directions = _directions(rows)
    variance, total = jnp.square(values) / (count - 1), float(squares) / (count - 1)
    rest = variance[components:]
    noise = 0.0 if components in (len(new), new.shape[1]) else float(rest.mean())
    return Pca(
        mean,
        directions[:components],
        variance[:components],
        variance[:components] / total,
        values[:components],
        noise,
        total,
        count,
    )


def transform(points: Points, found: Pca, whiten: bool = False) -> Float[Array, "n k"]:
    """The points' coordinates along the components.

    Args:
      points: as those that were fitted.
      found: their components.
      whiten: whether coordinates are divided by their standard deviation.
    """
    centred = jnp.asarray(points, jnp.float32) - found.mean
    coordinates = jnp.matmul(centred, found.components.T, precision=_EXACT)
    return coordinates / jnp.sqrt(found.variance) if whiten else coordinates


def inverse_transform(
    coordinates: Float[Array | np.ndarray, "n k"], found: Pca, whiten: bool = False
) -> Float[Array, "n d"]:
    """The points with these coordinates and nothing of other directions.

    Args:
      coordinates: as `transform` gives them.
      found: the components.
      whiten: as in `transform`.
    """
    coordinates = jnp.asarray(coordinates, jnp.float32)
    if whiten:
        coordinates = coordinates * jnp.sqrt(found.variance)
    return jnp.matmul(coordinates, found.components, precision=_EXACT) + found.mean


def log_likelihood(points: Points, found: Pca) -> Float[Array, " n"]:
    """Of each point in nats, under the Gaussian whose maximum likelihood PCA is.

    Tipping and Bishop, Probabilistic Principal Component Analysis, 1999,
    https://doi.org/10.1111/1467-9868.00196. Directions that are left out have `noise_variance`. It
    is what a VAE with linear encoder and decoder can reach at best.

    Raises:
      UserError: no direction is left out, or nothing varies in those that are.
    """
    kept, dimensions = found.components.shape
    if not found.noise_variance > 0:
        raise UserError("All variance is in the components; a likelihood wants some left out.")
    centred = jnp.asarray(points, jnp.float32) - found.mean
    along = jnp.matmul(centred, found.components.T, precision=_EXACT)
    beyond = centred - jnp.matmul(along, found.components, precision=_EXACT)
    distance = (jnp.square(along) / found.variance).sum(-1)
    distance += jnp.square(beyond).sum(-1) / found.noise_variance
    spread = jnp.log(found.variance).sum() + (dimensions - kept) * math.log(found.noise_variance)
    return -(distance + spread + dimensions * math.log(2 * math.pi)) / 2


@jax.jit
def _directions(rows: Float[Array, "n d"]) -> tuple[Float[Array, " k"], Float[Array, "k d"]]:
    """Singular values and right singular vectors, the largest entry of each positive."""
    if rows.shape[0] > rows.shape[1]:  # the triangle has the same, and is smaller
        rows = jnp.linalg.qr(rows, mode="r")
    _, values, vectors = jnp.linalg.svd(rows, full_matrices=False)
    largest = jnp.abs(vectors).argmax(1)
    signs = jnp.sign(jnp.take_along_axis(vectors, largest[:, None], 1))
    return values, vectors * signs


def _check_points(points: Array) -> None:
    if len(points) < 2 or not bool(jnp.isfinite(points).all()):
        raise UserError(
            f"PCA takes two or more finite points; got {len(points)}, or some that are not finite."
        )


def _checked(components: int | float, most: int) -> int:
    """Raises:
    UserError: there are not so many.
    """
    if not isinstance(components, int) or not 1 <= components <= most:
        raise UserError(
            f"components={components} is from 1 to {most} here, or a part of the variance below 1."
        )
    return components
