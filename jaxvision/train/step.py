"""The pure functions that training is made of: one step, the initial state."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxvision.metrics import Mean
from jaxvision.ops import random
from jaxvision.ops.forms import square_sum
from jaxvision.tasks import Task
from jaxvision.train.state import TrainState

Batch = dict[str, jax.Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]

# Independent streams of random numbers from the one seed.
_INIT, _STEP = 0, 1


def stream(seed: int, purpose: int) -> jax.Array:
    """The key of one of the streams that a seed decides."""
    return jax.random.fold_in(random.key(seed), purpose)


def init_variables(task: Task, seed: int, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Fresh variables, decided by the seed."""
    return task.init(stream(seed, _INIT), image_shape)


def init_state(
    variables: dict[str, Any], optimizer: optax.GradientTransformation, ema: bool
) -> TrainState:
    """The state before the first step."""
    variables = dict(variables)
    params = variables.pop("params")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=variables,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params) if ema else None,
    )


def make_train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    accumulate: int = 1,
    ema: float = 0.0,
) -> Step:
    """`train_step(state, batch) -> (state, accumulators)`; its keys derive from (seed, step)."""
    key = stream(seed, _STEP)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        step_key = jax.random.fold_in(key, state.step)
        if accumulate == 1:
            gradient, (model_state, metrics) = task.gradients(state, batch, step_key)
        else:
            gradient, (model_state, metrics) = _accumulated(
                task, state, batch, step_key, accumulate
            )
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averaged = state.ema
        if averaged is not None:
            averaged = optax.incremental_update(params, averaged, 1 - ema)
        norm = jnp.sqrt(sum(map(square_sum, jax.tree.leaves(gradient)), jnp.zeros(())))
        metrics["gradient_norm"] = Mean.of(norm, jnp.ones(()))
        new = TrainState(state.step + 1, params, model_state, opt_state, averaged)
        return new, metrics

    return train_step


def _accumulated(task: Task, state: TrainState, batch: Batch, key: jax.Array, parts: int):
    """Mean gradient of `parts` micro-batches, one after another."""

    def split(rows: jax.Array) -> jax.Array:
        # Strided, so that each device keeps the rows that it already holds.
        return rows.reshape(rows.shape[0] // parts, parts, *rows.shape[1:]).swapaxes(0, 1)

    def one(carry: Any, micro: Any):
        gradient, model_state = carry
        index, rows = micro
        inner = state.replace(model_state=model_state)
        new, (model_state, metrics) = task.gradients(inner, rows, jax.random.fold_in(key, index))
        return (jax.tree.map(jnp.add, gradient, new), model_state), metrics

    zero = jax.tree.map(jnp.zeros_like, state.params)
    (gradient, model_state), metrics = jax.lax.scan(
        one, (zero, state.model_state), (jnp.arange(parts), jax.tree.map(split, batch))
    )
    gradient = jax.tree.map(lambda g: g / parts, gradient)
    return gradient, (model_state, jax.tree.map(lambda m: jnp.sum(m, 0), metrics))
