"""Searching: by a controller that learns, and at random."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxvision.search.controller import Controller, sample
from jaxvision.search.space import Space

Reward = Callable[[Int[Array, "n d"], Array], Float[Array, " n"]]


@dataclass(frozen=True)
class Round:
    """The networks of one round and their validation accuracies."""

    decisions: Int[np.ndarray, "n d"]
    accuracies: Float[np.ndarray, " n"]


def random_search(
    space: Space, accuracy: Reward, rounds: int, children: int, seed: int
) -> Iterator[Round]:
    """Rounds of networks drawn uniformly; the budget to compare with.

    Args:
      space: what is chosen from.
      accuracy: trains networks, given a key, and says how good they are, from 0 to 1.
      rounds: how many.
      children: networks a round.
      seed: decides everything.
    """
    key = jax.random.key(seed)
    for number in range(rounds):
        of_choice, of_training = jax.random.split(jax.random.fold_in(key, number))
        decisions = space.uniform(of_choice, children)
        yield Round(np.asarray(decisions), np.asarray(accuracy(decisions, of_training)))


def reinforce(
    space: Space,
    accuracy: Reward,
    rounds: int,
    children: int,
    seed: int,
    learning_rate: float = 0.02,
    baseline_decay: float = 0.8,
    entropy_weight: float = 0.01,
    width: int = 64,
) -> Iterator[Round]:
    """Rounds of networks drawn by a controller that learns from each round.

    REINFORCE (Williams 1992, https://doi.org/10.1007/BF00992696) with the cube of the accuracy as
    the reward, as in the paper, less an exponential moving average of earlier rounds, in units of
    the round's spread.

    Args:
      space, accuracy, rounds, children, seed: as for `random_search`.
      learning_rate: of the controller's Adam.
      baseline_decay: of the moving average.
      entropy_weight: of a bonus that keeps the controller from settling early.
      width: of the controller.
    """
    controller = Controller(space, width)
    key, of_params = jax.random.split(jax.random.key(seed))
    start = jnp.zeros((1, len(space.choices)), jnp.int32)
    params = controller.init(of_params, None, start)["params"]
    update = optax.adam(learning_rate)
    state, baseline = update.init(params), None

    @jax.jit
    def learn(params, state, decisions, advantages):
        def loss(params):
            found: Any = controller.apply({"params": params}, None, decisions)
            _, log_p, entropy = found
            return -(advantages * log_p + entropy_weight * entropy).mean()

        updates, state = update.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    for number in range(rounds):
        of_choice, of_training = jax.random.split(jax.random.fold_in(key, number))
        decisions = sample(controller, params, of_choice, children)
        accuracies = accuracy(decisions, of_training)
        rewards = accuracies**3
        if baseline is None:
            baseline = rewards.mean()
        advantages = (rewards - baseline) / (rewards.std() + 1e-6)
        baseline = baseline_decay * baseline + (1 - baseline_decay) * rewards.mean()
        params, state = learn(params, state, decisions, advantages)
        yield Round(np.asarray(decisions), np.asarray(accuracies))
