"""How alike two sets of images are, by features that a network gives of them.

Beside these stands `metrics.frechet.frechet_distance`, which of such features is the FID. All are
computed in float64 on the host, of all features at once, so they are the same however many devices
and processes made the features.
"""

import numpy as np
from jaxtyping import Float

from jaxvision.errors import UserError

_BLOCK = 2048  # rows of a matrix of pairs that exist at a time


def kernel_distance(
    a: Float[np.ndarray, "n f"],
    b: Float[np.ndarray, "m f"],
    degree: int = 3,
    gamma: float | None = None,
    offset: float = 1.0,
) -> float:
    """The squared maximum mean discrepancy, unbiased, under `(gamma <x, y> + offset)^degree`.

    Of Inception's features it is the KID of Binkowski et al., Demystifying MMD GANs, 2018,
    https://arxiv.org/abs/1801.01401. It may be below 0. Of subsets of the features, as which others
    compute it, this is the mean over all that there are.

    Args:
      a, b: features, at least two in each set.
      degree: of the polynomial.
      gamma: of the product; None is one over the number of features.
      offset: what is added to it.

    Raises:
      UserError: a set has fewer than two rows.
    """
    _check("The kernel distance", 2, a, b)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    scale = 1 / a.shape[1] if gamma is None else gamma

    def total(x: np.ndarray, y: np.ndarray) -> float:
        rows = range(0, len(x), _BLOCK)
        return sum(((scale * x[i : i + _BLOCK] @ y.T + offset) ** degree).sum() for i in rows)

    def of_itself(x: np.ndarray) -> float:
        return ((scale * np.square(x).sum(1) + offset) ** degree).sum()

    within = [(total(x, x) - of_itself(x)) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return float(sum(within) - 2 * total(a, b) / (len(a) * len(b)))


def precision_and_recall(
    real: Float[np.ndarray, "n f"], fake: Float[np.ndarray, "m f"], neighbours: int = 3
) -> tuple[float, float]:
    """(part of the fake within the real ones' reach, part of the real within the fake ones').

    What is within reach of a set is no further from one of its points than that point's k-th
    neighbour in the set. Kynkäänniemi et al., Improved precision and recall metric for assessing
    generative models, 2019, https://arxiv.org/abs/1904.06991.

    Args:
      real, fake: features.
      neighbours: k, without the point itself.

    Raises:
      UserError: a set has no k-th neighbours.
    """
    _check(f"Reach to the {neighbours}. neighbour", neighbours + 1, real, fake)
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    of_real, of_fake = (_reach(points, neighbours) for points in (real, fake))
    return _within(fake, real, of_real), _within(real, fake, of_fake)


def inception_score(probabilities: Float[np.ndarray, "n k"], splits: int = 1) -> float:
    """`exp(mean KL(p(class | image) || p(class)))`, the mean over equal parts of the images.

    Salimans et al., Improved techniques for training GANs, 2016, https://arxiv.org/abs/1606.03498,
    who take ten parts of 50,000 images.

    Args:
      probabilities: of classes, by a trained classifier.
      splits: parts.

    Raises:
      UserError: there are fewer images than parts.
    """
    _check("The inception score", splits, probabilities)
    found = []
    for part in np.array_split(np.asarray(probabilities, np.float64), splits):
        part = np.maximum(part, 1e-300)
        divergence = part * (np.log(part) - np.log(part.mean(0)))
        found.append(np.exp(divergence.sum(1).mean()))
    return float(np.mean(found))


def _check(what: str, least: int, *sets: np.ndarray) -> None:
    counts = [len(one) for one in sets]
    if min(counts) < least:
        have = ", ".join(map(str, counts))
        raise UserError(f"{what} needs {least} images or more in a set; got {have}.")


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared, [n, m]."""
    found = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T
    return np.maximum(found, 0)


def _reach(points: np.ndarray, neighbours: int) -> np.ndarray:
    """Squared distance of each point to its k-th neighbour."""
    found = [
        np.partition(_distances(points[i : i + _BLOCK], points), neighbours, axis=1)[:, neighbours]
        for i in range(0, len(points), _BLOCK)
    ]
    return np.concatenate(found)


def _within(points: np.ndarray, others: np.ndarray, reach: np.ndarray) -> float:
    found = [
        (_distances(points[i : i + _BLOCK], others) <= reach).any(1)
        for i in range(0, len(points), _BLOCK)
    ]
    return float(np.concatenate(found).mean())
