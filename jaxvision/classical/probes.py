"""How good features are: the vote of neighbours, and a linear classifier on them.

Neighbours vote as in Wu et al. 2018 (https://arxiv.org/abs/1805.01978) and Caron et al. 2021
(https://arxiv.org/abs/2104.14294): each by exp(cosine similarity / temperature).
"""

import numpy as np
from jaxtyping import Float, Int

from jaxvision.classical.neighbours import nearest_neighbours

Features = Float[np.ndarray, "n f"]
Labels = Int[np.ndarray, " n"]


def unit(features: Features) -> Features:
    """The vectors at length one; zeros stay zero."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def knn_accuracy(
    features: Features,
    labels: Labels,
    test_features: Float[np.ndarray, "m f"],
    test_labels: Int[np.ndarray, " m"],
    neighbours: int = 20,
    temperature: float = 0.07,
) -> float:
    """The share of test vectors whose neighbours vote for their class.

    Args:
      features, labels: that vote.
      test_features, test_labels: that are voted on.
      neighbours: how many vote, at most all.
      temperature: of the votes.
    """
    count = min(neighbours, len(features))
    distances, indices = nearest_neighbours(unit(test_features), unit(features), count, "cosine")
    votes = np.exp((1 - np.asarray(distances)) / temperature)
    return _accuracy(votes, labels[np.asarray(indices)], test_labels)


def leave_one_out_accuracy(
    features: Features, labels: Labels, neighbours: int = 20, temperature: float = 0.07
) -> float:
    """The share of vectors whose neighbours among the others vote for their class.

    Args: see `knn_accuracy`.
    """
    ready = unit(features)
    count = min(neighbours, len(ready) - 1)
    distances, indices = (
        np.asarray(found) for found in nearest_neighbours(ready, ready, count + 1, "cosine")
    )
    itself = indices == np.arange(len(ready))[:, None]
    votes = np.where(itself, 0.0, np.exp((1 - distances) / temperature))
    return _accuracy(votes, labels[indices], labels)


def _accuracy(
    votes: Float[np.ndarray, "n k"], classes: Int[np.ndarray, "n k"], labels: Labels
) -> float:
    """The share of rows whose votes for classes elect the label."""
    total = np.zeros((len(labels), 1 + max(int(labels.max()), int(classes.max()))))
    np.add.at(total, (np.arange(len(labels))[:, None], classes), votes)
    return float((total.argmax(1) == labels).mean())
