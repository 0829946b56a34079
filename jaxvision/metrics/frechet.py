"""The Fréchet distance between two sets of vectors, each taken for a Gaussian.

Dowson and Landau, The Fréchet distance between multivariate normal distributions, 1982; of
Inception's features it is the FID of Heusel et al. 2017, https://arxiv.org/abs/1706.08500.
"""

import numpy as np
from jaxtyping import Float

from jaxvision.errors import UserError


def frechet_distance(a: Float[np.ndarray, "n f"], b: Float[np.ndarray, "m f"]) -> float:
    """`|mean_a - mean_b|^2 + trace(C_a + C_b - 2 (C_a C_b)^(1/2))`, of unbiased covariances.

    The trace of the root is that of (C_a^(1/2) C_b C_a^(1/2))^(1/2), which is symmetric.

    Args:
      a, b: vectors, at least two in each set; computed in float64.

    Raises:
      UserError: a set has fewer than two vectors.
    """
    if min(len(a), len(b)) < 2:
        raise UserError(f"The Fréchet distance needs two vectors or more; got {len(a)}, {len(b)}.")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    mean = np.square(a.mean(0) - b.mean(0)).sum()
    of_a, of_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    values, vectors = np.linalg.eigh(of_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    middle = np.linalg.eigvalsh(root @ of_b @ root)
    cross = np.sqrt(np.maximum(middle, 0)).sum()
    return float(mean + np.trace(of_a) + np.trace(of_b) - 2 * cross)
