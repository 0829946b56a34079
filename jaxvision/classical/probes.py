"""How good features are: the vote of neighbours, and a linear classifier on them.

Neighbours vote as in Wu et al. 2018 (https://arxiv.org/abs/1805.01978) and Caron et al. 2021
(https://arxiv.org/abs/2104.14294): each by exp(cosine similarity / temperature).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxvision.classical.neighbours import nearest_neighbours
from jaxvision.errors import UserError

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
    distances, indices = nearest_neighbours(test_features, features, count, "cosine")
    votes = np.exp((1 - np.asarray(distances)) / temperature)
    return _accuracy(votes, labels[np.asarray(indices)], test_labels)


def leave_one_out_accuracy(
    features: Features, labels: Labels, neighbours: int = 20, temperature: float = 0.07
) -> float:
    """The share of vectors whose neighbours among the others vote for their class.

    Args: see `knn_accuracy`.
    """
    count = min(neighbours, len(features) - 1)
    distances, indices = (
        np.asarray(found) for found in nearest_neighbours(features, features, count + 1, "cosine")
    )
    itself = indices == np.arange(len(features))[:, None]
    votes = np.where(itself, 0.0, np.exp((1 - distances) / temperature))
    return _accuracy(votes, labels[indices], labels)


def _accuracy(
    votes: Float[np.ndarray, "n k"], classes: Int[np.ndarray, "n k"], labels: Labels
) -> float:
    """The share of rows whose votes for classes elect the label."""
    total = np.zeros((len(labels), 1 + max(int(labels.max()), int(classes.max()))))
    np.add.at(total, (np.arange(len(labels))[:, None], classes), votes)
    return float((total.argmax(1) == labels).mean())


# Of the linear probe.
RATES = tuple(float(rate) for rate in np.geomspace(1e-3, 10.0, 13).round(6))
_BATCH, _MOMENTUM, _HELD_OUT = 256, 0.9, 0.1


class LinearProbe(NamedTuple):
    """What `linear_probe` found.

    Attributes:
      accuracy: of the test vectors.
      rate: the learning rate that did best on training vectors that were held out.
    """

    accuracy: float
    rate: float


def linear_probe(
    features: Features,
    labels: Labels,
    test_features: Float[np.ndarray, "m f"],
    test_labels: Int[np.ndarray, " m"],
    num_classes: int,
    epochs: int = 100,
    rates: tuple[float, ...] = RATES,
    seed: int = 0,
) -> LinearProbe:
    """A linear classifier by gradient descent, at many learning rates at once.

    Every rate has a classifier of its own, all are trained in one program under `vmap`: momentum
    0.9, batches of 256, the rate falling along a cosine, no weight decay, on features brought to
    mean 0 and variance 1, as a batch norm before the classifier does it (He et al. 2021,
    https://arxiv.org/abs/2111.06377, appendix A). A tenth of the training vectors is held out and
    chooses the rate; the classifier of that rate is tested.

    Args:
      features, labels: to learn from.
      test_features, test_labels: to test.
      num_classes: labels are 0 to one less.
      epochs: passes over the training vectors.
      rates: learning rates for batches of 256.
      seed: of the order.

    Raises:
      UserError: there is nothing to hold out or to learn from.
    """
    if len(features) < 2:
        raise UserError(
            f"A linear probe wants two images or more to learn from, not {len(features)}."
        )
    mean, std = features.mean(0), features.std(0)
    scale = np.where(std > 1e-6, std, 1.0)
    x, z = ((v - mean) / scale for v in (features, test_features))
    order = np.random.default_rng(seed).permutation(len(x))
    held, kept = np.split(order, [max(1, int(_HELD_OUT * len(x)))])
    batch = min(_BATCH, len(kept))
    steps = max(1, epochs * len(kept) // batch)
    models = _descended(
        jnp.asarray(x[kept], jnp.float32),
        jnp.asarray(labels[kept]),
        jnp.asarray(rates, jnp.float32) * batch / _BATCH,
        jax.random.key(seed),
        num_classes,
        batch,
        steps,
    )
    found = _accuracies(models, jnp.asarray(x[held], jnp.float32), jnp.asarray(labels[held]))
    best = int(np.argmax(found))
    tested = _accuracies(models, jnp.asarray(z, jnp.float32), jnp.asarray(test_labels))
    return LinearProbe(float(tested[best]), rates[best])


Models = tuple[Float[Array, "r f k"], Float[Array, "r k"]]


@partial(jax.jit, static_argnames=("num_classes", "batch", "steps"))
def _descended(
    x: Array, labels: Array, rates: Array, key: Array, num_classes: int, batch: int, steps: int
) -> Models:
    """Weights and biases, one of each for every rate."""

    def loss(model: tuple[Array, Array], rows: Array, classes: Array) -> Array:
        scores = rows @ model[0] + model[1]
        return optax.softmax_cross_entropy_with_integer_labels(scores, classes).mean()

    def train(rate: Array) -> tuple[Array, Array]:
        rule = optax.sgd(optax.cosine_decay_schedule(1.0, steps), _MOMENTUM)

        def step(carry: tuple, number: Array) -> tuple[tuple, None]:
            model, state = carry
            drawn = jax.random.randint(jax.random.fold_in(key, number), (batch,), 0, len(x))
            gradient = jax.grad(loss)(model, x[drawn], labels[drawn])
            updates, state = rule.update(gradient, state, model)
            model = jax.tree.map(lambda old, change: old + rate * change, model, updates)
            return (model, state), None

        model = (jnp.zeros((x.shape[1], num_classes)), jnp.zeros(num_classes))
        return jax.lax.scan(step, (model, rule.init(model)), jnp.arange(steps))[0][0]

    return jax.vmap(train)(rates)


@jax.jit
def _accuracies(models: Models, x: Array, labels: Array) -> Float[Array, " r"]:
    return jax.vmap(lambda weight, bias: ((x @ weight + bias).argmax(1) == labels).mean())(*models)
