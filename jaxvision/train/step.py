"""The pure functions that training is made of: one step, the initial state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxvision.metrics import Mean
from jaxvision.ops import random
from jaxvision.ops.forms import square_sum
from jaxvision.tasks.base import Batch, Loss, Spec, Sums, Task
from jaxvision.train.state import TrainState

Step = Callable[[TrainState, Batch], tuple[TrainState, Sums]]

# Independent streams of random numbers from the one seed.
INIT, STEP, EVALUATION, SAMPLING = 0, 1, 2, 3


def stream(seed: int, purpose: int) -> jax.Array:
    """The key of one of the streams that a seed decides."""
    return jax.random.fold_in(random.key(seed), purpose)


def init_variables(task: Task, seed: int, spec: Spec) -> dict[str, Any]:
    """Fresh variables, decided by the seed."""
    return task.init(stream(seed, INIT), spec)


@dataclass(frozen=True)
class Group:
    """How a group of parameters is updated.

    Attributes:
      rule: the optimiser, learning rate and all.
      owns: top-level names of the parameter tree; () is the whole tree.
      accumulate: micro-batches that its gradient is the mean of.
      schedule: the learning rate by step, for the log.
    """

    rule: optax.GradientTransformation
    owns: tuple[str, ...] = ()
    accumulate: int = 1
    schedule: Callable[[Any], Any] = lambda step: jnp.zeros(())

    def of(self, params: Any) -> Any:
        """The group's part of the parameter tree."""
        return {name: params[name] for name in self.owns} if self.owns else params


def init_state(variables: dict[str, Any], groups: Mapping[str, Group], ema: bool) -> TrainState:
    """The state before the first step."""
    variables = dict(variables)
    params = variables.pop("params")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=variables,
        opt_state={name: group.rule.init(group.of(params)) for name, group in groups.items()},
        ema=jax.tree.map(jnp.copy, params) if ema else None,
    )


@dataclass
class Update:
    """What one step may do to its groups; see `tasks.base.Update`.

    Attributes:
      norms: of the gradients that have been used, by group.
    """

    groups: Mapping[str, Group]
    total: int
    norms: dict[str, jax.Array] = field(default_factory=dict)

    def gradients(
        self, group: str, loss: Loss, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[Any, tuple[Any, Sums]]:
        chosen = self.groups[group]
        params = chosen.of(state.params)
        differentiate = jax.grad(loss, has_aux=True)
        if chosen.accumulate == 1:
            return differentiate(params, state.model_state, batch, key)
        return _accumulated(differentiate, params, state.model_state, batch, key, chosen.accumulate)

    def __call__(self, group: str, gradient: Any, state: TrainState) -> TrainState:
        chosen = self.groups[group]
        params = chosen.of(state.params)
        updates, opt_state = chosen.rule.update(gradient, state.opt_state[group], params)
        new = optax.apply_updates(params, updates)
        self.norms[group] = jnp.sqrt(sum(map(square_sum, jax.tree.leaves(gradient)), jnp.zeros(())))
        return state.replace(
            params={**state.params, **new} if chosen.owns else new,
            opt_state={**state.opt_state, group: opt_state},
        )


def make_train_step(
    task: Task, groups: Mapping[str, Group], *, seed: int, total: int = 1, ema: float = 0.0
) -> Step:
    """`train_step(state, batch) -> (state, sums)`; its keys derive from (seed, step).

    Args:
      task: whose `step` it is.
      groups: of the task's parameters.
      seed: of the run.
      total: steps of the training.
      ema: decay of the averaged weights, 0 for none.
    """
    key = stream(seed, STEP)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        update = Update(groups, total)
        new, sums = task.step(state, batch, jax.random.fold_in(key, state.step), update)
        averaged = state.ema
        if averaged is not None:
            averaged = optax.incremental_update(new.params, averaged, 1 - ema)
        for group, norm in update.norms.items():
            name = "gradient_norm" if len(groups) == 1 else f"gradient_norm/{group}"
            sums[name] = Mean.of(norm, jnp.ones(()))
        return new.replace(step=state.step + 1, ema=averaged), sums

    return train_step


def _accumulated(
    differentiate: Any, params: Any, model_state: Any, batch: Batch, key: jax.Array, parts: int
) -> Any:
    """Mean gradient of `parts` micro-batches, one after another."""

    def split(rows: jax.Array) -> jax.Array:
        # Strided, so that each device keeps the rows that it already holds.
        return rows.reshape(rows.shape[0] // parts, parts, *rows.shape[1:]).swapaxes(0, 1)

    def one(carry: Any, micro: Any):
        gradient, model_state = carry
        index, rows = micro
        new, (model_state, sums) = differentiate(
            params, model_state, rows, jax.random.fold_in(key, index)
        )
        return (jax.tree.map(jnp.add, gradient, new), model_state), sums

    zero = jax.tree.map(jnp.zeros_like, params)
    (gradient, model_state), sums = jax.lax.scan(
        one, (zero, model_state), (jnp.arange(parts), jax.tree.map(split, batch))
    )
    gradient = jax.tree.map(lambda g: g / parts, gradient)
    return gradient, (model_state, jax.tree.map(lambda m: jnp.sum(m, 0), sums))
