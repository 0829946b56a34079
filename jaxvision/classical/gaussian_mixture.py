"""Mixtures of Gaussians by expectation and maximisation.

Dempster, Laird and Rubin, "Maximum Likelihood from Incomplete Data via the EM Algorithm", 1977,
https://doi.org/10.1111/j.2517-6161.1977.tb01600.x; Bishop, "Pattern Recognition and Machine
Learning", 2006, section 9.2. The numbers are those of `sklearn.mixture.GaussianMixture`.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, ArrayLike, Float, Int

from jaxvision.classical.kmeans import in_blocks, kmeans
from jaxvision.errors import UserError, unknown

COVARIANCES = ("full", "diag", "spherical")
_EXACT = lax.Precision.HIGHEST
Density = tuple[Array, Array, Array]  # weights, means, covariances
Moments = tuple[Array, Array, Array, Array]  # log-likelihood, mass, first, second
_TINY = 1e-12  # a share of one point, so that a component that lost all its points stays finite


class GaussianMixture(NamedTuple):
    """A density, and the points that it was fitted to.

    Attributes:
      weights: of the components, summing to 1.
      means: of the components.
      covariances: [k d d] if full, the variances [k d] if diag, [k] if spherical.
      labels: each point's likeliest component.
      lower_bound: mean log-likelihood of the points, in nats, as the last iteration began.
      iterations: of EM, of the start that won.
      converged: whether the bound changed by less than `tol`.
    """

    weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    covariances: Float[Array, " k *d"]
    labels: Int[Array, " n"]
    lower_bound: float
    iterations: int
    converged: bool


def gaussian_mixture(
    points: Float[Array | np.ndarray, "n d"],
    k: int,
    covariance: str = "full",
    *,
    seed: int = 0,
    starts: Float[Array | np.ndarray, "k d"] | None = None,
    n_init: int = 1,
    max_iter: int = 100,
    tol: float = 1e-3,
    reg_covar: float = 1e-6,
) -> GaussianMixture:
    """The likeliest of `n_init` mixtures, each begun from hard assignments to starting means.

    Args:
      points: what to fit.
      k: number of components.
      covariance: `full`, `diag` (axes of the coordinates) or `spherical` (one variance each).
      seed: of the starts.
      starts: first means instead of those that k-means finds; then there is one run. A point
        begins in the component of the nearest.
      n_init: how many runs.
      max_iter: iterations of a run at most.
      tol: a run ends where the lower bound changes by less.
      reg_covar: added to variances, so that none vanishes.

    Raises:
      UserError: unknown covariance, k outside 1 to n, starts of another shape, an option outside
        its range, or a covariance that is singular in 32 bits.
    """
    if covariance not in COVARIANCES:
        raise unknown("covariance", covariance, COVARIANCES)
    if not 1 <= k <= len(points):
        raise UserError(f"k={k} components of {len(points)} points; k is from 1 to {len(points)}.")
    if starts is not None and starts.shape != (k, points.shape[1]):
        raise UserError(f"Starts are {list(starts.shape)}, not {[k, points.shape[1]]}.")
    if n_init < 1 or max_iter < 1:
        raise UserError(f"n_init={n_init} and max_iter={max_iter} must be at least 1.")
    for name, value in (("tol", tol), ("reg_covar", reg_covar)):
        if not value >= 0:
            raise UserError(f"{name}={value} must be at least 0.")
    points = jnp.asarray(points, jnp.float32)
    if not jnp.isfinite(points).all():
        raise UserError("Points must be finite; some are NaN or infinite.")
    centre = points.mean(0)  # the origin, for the rounding's sake
    blocks, real = in_blocks(points - centre)
    best: tuple = ()
    for run in range(1 if starts is not None else n_init):
        begin = kmeans(points, k, seed=seed + run).centers if starts is None else starts
        begin = jnp.asarray(begin, jnp.float32) - centre
        found = _em(blocks, real, begin, (max_iter, tol, reg_covar), covariance)
        best = found if not best or found[1] > best[1] else best
    (weights, means, covariances), bound, iterations, change, labels = best
    if not math.isfinite(float(bound)) or not jnp.isfinite(covariances).all():
        raise UserError(f"A covariance is singular; raise reg_covar={reg_covar}, or lower k={k}.")
    return GaussianMixture(
        weights, means + centre, covariances, labels[: len(points)],
        float(bound), int(iterations), bool(jnp.abs(change) < tol),
    )  # fmt: skip


def responsibilities(
    points: Float[Array | np.ndarray, "n d"], mixture: GaussianMixture
) -> tuple[Float[Array, "n k"], Float[Array, " n"]]:
    """(each component's probability given each point, the points' log-likelihoods in nats)."""
    origin = mixture.means.mean(0)
    blocks, _ = in_blocks(jnp.asarray(points, jnp.float32) - origin)
    kind = {1: "spherical", 2: "diag", 3: "full"}[mixture.covariances.ndim]
    density = (mixture.weights, mixture.means - origin, mixture.covariances)
    joint, _ = lax.map(partial(_log_joint, _factors(density, kind)), blocks)
    joint = joint.transpose(0, 2, 1).reshape(-1, len(mixture.weights))[: len(points)]
    return jax.nn.softmax(joint), jax.nn.logsumexp(joint, -1)


def _factors(density: Density, kind: str) -> tuple[Array, ...]:
    """(whitening [k d d], its inverse [k d d], means, the logarithm of what stands before exp)."""
    weights, means, covariances = density
    eye = jnp.eye(means.shape[1])
    if kind == "full":
        root = jnp.linalg.cholesky(covariances)
        white = jax.vmap(lambda r: solve_triangular(r, eye, lower=True))(root)
    else:
        deviation = jnp.sqrt(covariances if kind == "diag" else covariances[:, None])
        root = deviation[..., None] * eye
        white = eye / deviation[..., None]
    log_det = jnp.sum(jnp.log(jnp.diagonal(root, axis1=1, axis2=2)), -1)
    constant = jnp.log(weights) - log_det - 0.5 * means.shape[1] * math.log(2 * math.pi)
    return white, root, means, constant


def _log_joint(factors: tuple[Array, ...], points: Float[Array, "d n"]) -> tuple[Array, Array]:
    """(log of weight times density [k n], whitened differences from the means [k d n])."""
    white, _, means, constant = factors
    components, dimensions, _ = white.shape
    shift = jnp.einsum("kij,kj->ki", white, means, precision=_EXACT).reshape(-1, 1)
    # One product for all components.
    apart = jnp.matmul(white.reshape(-1, dimensions), points, precision=_EXACT) - shift
    apart = apart.reshape(components, dimensions, -1)
    return constant[:, None] - 0.5 * jnp.sum(apart**2, 1), apart


def _moments(
    factors: tuple[Array, ...], kind: str, hard: bool, blocks: Array, real: Array
) -> Moments:
    """Expectation: (log-likelihood, mass, first and second moments of the components).

    Moments are in whitened coordinates about the present means, so that 32 bits suffice for
    clusters that are small and far apart; and one pass over the points serves both halves of an
    iteration.

    Args:
      factors: see `_factors`.
      kind: of covariance.
      hard: whether a point counts for its likeliest component alone.
      blocks: the points, [blocks d n].
      real: which of them are points, [blocks n].
    """
    k, dimensions = factors[2].shape

    def add(sums: Moments, part: tuple[Array, Array]) -> tuple[Moments, None]:
        points, real = part
        joint, apart = _log_joint(factors, points)
        likelihood = jax.nn.logsumexp(joint, 0)
        if hard:
            share = (joint.argmax(0) == jnp.arange(k)[:, None]).astype(jnp.float32)
        else:
            share = jnp.exp(joint - likelihood)
        share = jnp.where(real, share, 0)
        weighted = share[:, None] * apart
        if kind == "full":
            second = jnp.einsum("kin,kjn->kij", weighted, apart, precision=_EXACT)
        else:
            second = jnp.sum(weighted * apart, -1)
        new = (
            jnp.sum(jnp.where(real, likelihood, 0)), share.sum(-1), weighted.sum(-1), second,
        )  # fmt: skip
        return jax.tree.map(jnp.add, sums, new), None

    shape = (k, dimensions, dimensions) if kind == "full" else (k, dimensions)
    zero = (jnp.float32(0), jnp.zeros(k), jnp.zeros((k, dimensions)), jnp.zeros(shape))
    return lax.scan(add, zero, (blocks, real))[0]


def _maximised(
    factors: tuple[Array, ...],
    kind: str,
    reg_covar: ArrayLike,
    mass: Array,
    first: Array,
    second: Array,
) -> Density:
    """Maximisation: the density of which `_moments` are the points'."""
    _, root, means, _ = factors
    shift = first / mass[:, None]
    moved = means + jnp.einsum("kij,kj->ki", root, shift, precision=_EXACT)
    if kind == "full":
        second = second / mass[:, None, None] - shift[:, :, None] * shift[:, None]
        spread = jnp.einsum("kij,kjl,kml->kim", root, second, root, precision=_EXACT)
        spread = (spread + spread.swapaxes(1, 2)) / 2 + reg_covar * jnp.eye(means.shape[1])
    else:
        variance = jnp.diagonal(root, axis1=1, axis2=2) ** 2
        spread = variance * jnp.maximum(second / mass[:, None] - shift**2, 0) + reg_covar
    if kind == "spherical":
        spread = spread.mean(-1)
    return mass / mass.sum(), moved, spread


def _first_density(blocks: Array, real: Array, starts: Array, kind: str) -> Density:
    """Equal components about the starting means, round and as wide as all points together."""
    k, dimensions = starts.shape
    variance = jnp.sum(jnp.where(real[:, None], blocks, 0) ** 2) / (real.sum() * dimensions)
    variance = jnp.where(variance > 0, variance, 1)
    spread = {
        "full": variance * jnp.broadcast_to(jnp.eye(dimensions), (k, dimensions, dimensions)),
        "diag": jnp.full((k, dimensions), variance),
        "spherical": jnp.full(k, variance),
    }[kind]
    return jnp.full(k, 1 / k), starts, spread


@partial(jax.jit, static_argnames="kind")
def _em(
    blocks: Array, real: Array, starts: Array, limits: tuple[ArrayLike, ...], kind: str
) -> tuple[Density, Array, ArrayLike, Array, Array]:
    """(weights, means, covariances), lower bound, iterations, its last change, labels."""
    max_iter, tol, reg_covar = limits

    def iterate(density: Density, hard: bool) -> tuple[Array, Density]:
        """The lower bound of a density, and the next density."""
        factors = _factors(density, kind)
        bound, mass, first, second = _moments(factors, kind, hard, blocks, real)
        density = _maximised(factors, kind, reg_covar, mass + _TINY, first, second)
        return bound / real.sum(), density

    def step(carry: tuple) -> tuple:
        density, bound, _, done = carry
        now, density = iterate(density, hard=False)
        return density, now, now - bound, done + 1

    def unfinished(carry: tuple) -> Array:
        _, bound, change, done = carry
        return (done < max_iter) & (jnp.abs(change) >= tol) & ((done == 0) | jnp.isfinite(bound))

    _, density = iterate(_first_density(blocks, real, starts, kind), hard=True)
    start = (density, jnp.float32(-jnp.inf), jnp.float32(jnp.inf), 0)
    density, bound, change, done = lax.while_loop(unfinished, step, start)
    factors = _factors(density, kind)
    labels = lax.map(lambda points: _log_joint(factors, points)[0].argmax(0), blocks)
    return density, bound, done, change, labels.ravel().astype(jnp.int32)
