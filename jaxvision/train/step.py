"""The pure functions that training is made of: one step, the initial state."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxvision.layers.normalization import frozen_statistics
from jaxvision.losses import Objective, Ratio
from jaxvision.metrics import Mean
from jaxvision.ops import random
from jaxvision.ops.forms import square_sum
from jaxvision.tasks.base import Batch, Loss, Spec, Sums, Task, moving_average
from jaxvision.train.state import TrainState

Step = Callable[[TrainState, Batch], tuple[TrainState, Sums]]

# Independent streams of random numbers from the one seed.
INIT, STEP, EVALUATION, SAMPLING = 0, 1, 2, 3


def stream(seed: int | jax.Array, purpose: int) -> jax.Array:
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
      accumulate: micro-batches that its gradient is made of.
      schedule: the learning rate by step, for the log.
      learns: a tree like its parameters of whether each is trained; None trains all. Nothing is
        computed of the gradient of others, which is 0.
    """

    rule: optax.GradientTransformation
    owns: tuple[str, ...] = ()
    accumulate: int = 1
    schedule: Callable[[Any], Any] = lambda step: jnp.zeros(())
    learns: Any = None

    def of(self, params: Any) -> Any:
        """The group's part of the parameter tree."""
        return {name: params[name] for name in self.owns} if self.owns else params

    def holding(self, loss: Loss) -> Loss:
        """The loss as a function of the parameters that are trained."""
        if self.learns is None:
            return loss

        def of_trained(params: Any, *rest: Any) -> Any:
            held = jax.tree.map(
                lambda value, learns: value if learns else jax.lax.stop_gradient(value),
                params,
                self.learns,
            )
            return loss(held, *rest)

        return of_trained


def init_state(
    variables: dict[str, Any],
    groups: Mapping[str, Group],
    *,
    ema: bool = False,
    training_collections: Collection[str] = (),
) -> TrainState:
    """The state before the first step.

    Args:
      variables: fresh ones, or those to start from.
      groups: of parameters.
      ema: whether averages are kept.
      training_collections: of the variables, which have no averages.
    """
    averages = {k: tree for k, tree in variables.items() if k not in training_collections}
    variables = dict(variables)
    params = variables.pop("params")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=variables,
        opt_state={name: group.rule.init(group.of(params)) for name, group in groups.items()},
        ema=jax.tree.map(jnp.copy, averages) if ema else None,
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
        params, loss = chosen.of(state.params), chosen.holding(loss)
        if chosen.accumulate > 1:
            return _accumulated(loss, params, state.model_state, batch, key, chosen.accumulate)
        differentiate = jax.grad(lambda *args: _number(*loss(*args)), has_aux=True)
        return differentiate(params, state.model_state, batch, key)

    def __call__(self, group: str, gradient: Any, state: TrainState) -> TrainState:
        self.norms[group] = jnp.sqrt(sum(map(square_sum, jax.tree.leaves(gradient)), jnp.zeros(())))
        return self._applied(group, gradient, state)

    def when(
        self,
        due: jax.Array,
        group: str,
        loss: Loss,
        state: TrainState,
        batch: Batch,
        key: jax.Array,
    ) -> tuple[TrainState, Sums]:
        def act(state: TrainState) -> tuple[TrainState, Sums]:
            gradient, (model_state, sums) = self.gradients(group, loss, state, batch, key)
            return self._applied(group, gradient, state.replace(model_state=model_state)), sums

        nothing = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: act(state)[1])
        )
        return jax.lax.cond(due, act, lambda state: (state, nothing), state)

    def _applied(self, group: str, gradient: Any, state: TrainState) -> TrainState:
        chosen = self.groups[group]
        params = chosen.of(state.params)
        updates, opt_state = chosen.rule.update(gradient, state.opt_state[group], params)
        new = optax.apply_updates(params, updates)
        return state.replace(
            params={**state.params, **new} if chosen.owns else new,
            opt_state={**state.opt_state, group: opt_state},
        )


def make_train_step(
    task: Task,
    groups: Mapping[str, Group],
    *,
    seed: int,
    total: int = 1,
    ema: float = 0.0,
    freeze_statistics: Sequence[str] = (),
) -> Step:
    """`train_step(state, batch) -> (state, sums)`; its keys derive from (seed, step).

    Args:
      task: whose `step` it is.
      groups: of the task's parameters.
      seed: of the run.
      total: steps of the training.
      ema: highest decay of the averages, 0 for none.
      freeze_statistics: see `layers.normalization.frozen_statistics`.
    """
    key = stream(seed, STEP)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        update = Update(groups, total)
        with frozen_statistics(freeze_statistics):
            new, sums = task.step(state, batch, jax.random.fold_in(key, state.step), update)
        averages = state.ema
        if averages is not None:
            now = {kind: new.variables()[kind] for kind in averages}
            averages = moving_average(averages, now, ema_decay(ema, state.step))
        for group, norm in update.norms.items():
            name = "gradient_norm" if len(groups) == 1 else f"gradient_norm/{group}"
            sums[name] = Mean.of(norm, jnp.ones(()))
        return new.replace(step=state.step + 1, ema=averages), sums

    return train_step


def ema_decay(highest: float, step: jax.Array) -> jax.Array:
    """The decay of the averages at a step: it rises from 0 as 1 - (1 + step)^(-2/3) does.

    So initial values are forgotten at once, and averages of a short training are of all of it. It
    is the warm-up of `timm.utils.ModelEmaV3`.
    """
    return jnp.minimum(highest, 1 - (1.0 + step) ** (-2 / 3))


def _number(objective: jax.Array | Objective, aux: Any) -> tuple[jax.Array, Any]:
    """What is differentiated, and the new model_state and sums with the loss among them."""
    if not isinstance(objective, Objective):
        return objective, aux
    model_state, sums = aux
    sums = {"loss": Mean.of(objective.loss, jnp.ones(())), **sums}
    return objective.value, (model_state, sums)


def _accumulated(
    loss: Loss, params: Any, model_state: Any, batch: Batch, key: jax.Array, parts: int
) -> Any:
    """Gradient of the whole batch from `parts` micro-batches, one after another."""

    def split(rows: jax.Array) -> jax.Array:
        # Strided, so that each device keeps the rows that it already holds.
        return rows.reshape(rows.shape[0] // parts, parts, *rows.shape[1:]).swapaxes(0, 1)

    micro_batches = (jnp.arange(parts), jax.tree.map(split, batch))

    def weights_of(micro: Any) -> dict[str, jax.Array]:
        index, rows = micro
        objective, _ = loss(params, model_state, rows, jax.random.fold_in(key, index))
        means = objective.means if isinstance(objective, Objective) else {}
        return {name: mean.weight for name, mean in means.items()}

    # The network is not run for them: its outputs are not used, so XLA leaves it out.
    weights = jax.tree.map(lambda w: w.sum(0), jax.lax.map(weights_of, micro_batches))

    def share(params: Any, model_state: Any, rows: Any, key: jax.Array) -> Any:
        """What the micro-batch adds to the number of the whole batch."""
        objective, (model_state, sums) = loss(params, model_state, rows, key)
        if not isinstance(objective, Objective):
            return objective / parts, (model_state, sums)
        means = {n: Ratio(mean.total, weights[n]) for n, mean in objective.means.items()}
        added = Objective(means, objective.penalty / parts)
        sums = {"loss": Mean.of(added.loss * parts, jnp.ones(())), **sums}
        return added.value, (model_state, sums)

    def one(carry: Any, micro: Any):
        gradient, model_state = carry
        index, rows = micro
        new, (model_state, sums) = jax.grad(share, has_aux=True)(
            params, model_state, rows, jax.random.fold_in(key, index)
        )
        return (jax.tree.map(jnp.add, gradient, new), model_state), sums

    zero = jax.tree.map(jnp.zeros_like, params)
    (gradient, model_state), sums = jax.lax.scan(one, (zero, model_state), micro_batches)
    return gradient, (model_state, jax.tree.map(lambda m: jnp.sum(m, 0), sums))
