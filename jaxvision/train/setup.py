"""What a run settles before its first step: the update, the state's shape, the compiled step."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from flax.errors import ScopeParamShapeError
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvision.errors import UserError
from jaxvision.tasks.base import Spec, Task
from jaxvision.train import compilation, mesh, optimizer
from jaxvision.train.memory import garbage_waits
from jaxvision.train.state import TrainState
from jaxvision.train.step import Group, init_state, init_variables, make_train_step


@dataclass(frozen=True)
class Setup:
    """A run that has not begun; `prepare` makes it.

    Attributes:
      config: the run's.
      task: what is trained.
      devices: the mesh that it is trained on.
      spec: a batch as shapes.
      total: steps of the training.
      init: draws the network's variables; jitted, so that it is traced once.
      groups: of parameters, with their optimisers.
      variables: the network's variables as shapes.
      state: the training state as shapes, with the sharding of each array.
    """

    config: ConfigDict
    task: Task
    devices: Mesh
    spec: Spec
    total: int
    init: Callable[[], dict[str, Any]]
    groups: Mapping[str, Group]
    variables: dict[str, Any]
    state: TrainState

    @property
    def shardings(self) -> Any:
        """The shardings of the state's arrays."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.state)

    def state_of(self, variables: dict[str, Any]) -> TrainState:
        """The state that starts from these variables, on its devices."""
        return jax.jit(self._fresh, out_shardings=self.shardings)(variables)

    @garbage_waits()
    def begin(self, batch: Any) -> tuple[TrainState, compilation.Compiled]:
        """The initial state, and the training step for batches like this one.

        The values are drawn while the step is traced and compiled in a thread: of large networks
        either takes seconds. They are drawn in this one, whose memory is kept (train/memory.py).
        """
        draw = jax.jit(lambda: self._fresh(self.init()), out_shardings=self.shardings).lower()
        with ThreadPoolExecutor(1, thread_name_prefix="training-step") as thread:
            step = thread.submit(self.compile_step, batch)
            state = draw.compile()()
        return state, step.result()

    @garbage_waits()
    def compile_step(self, batch: Any) -> compilation.Compiled:
        """The training step, for batches like this one; it takes over the state's memory.

        Raises:
          UserError: parameters depend on the size of images, which is another than that of `spec`.
        """
        step = make_train_step(
            self.task,
            self.groups,
            seed=self.config.seed,
            total=self.total,
            ema=self.config.optimizer.ema,
            freeze_statistics=self.config.optimizer.freeze_statistics,
        )
        with sizes_checked(self.config, self.spec, batch), jax.set_mesh(self.devices):
            return compilation.compile_now(
                step, self.state, batch, donate=(0,), out_shardings=(self.shardings, None)
            )

    def _fresh(self, variables: dict[str, Any]) -> TrainState:
        return _fresh_state(self.config, self.task, self.groups, variables)


def _fresh_state(
    config: ConfigDict, task: Task, groups: Mapping[str, Group], variables: dict[str, Any]
) -> TrainState:
    return init_state(
        variables,
        groups,
        ema=config.optimizer.ema > 0,
        training_collections=task.training_collections,
    )


@contextlib.contextmanager
def sizes_checked(config: ConfigDict, spec: Spec, batch: Mapping[str, Any]) -> Iterator[None]:
    """Inside, the network is traced for a batch.

    Args:
      config: of the run.
      spec: that the network's parameters are for.
      batch: arrays, or shapes.

    Raises:
      UserError: parameters depend on the size of images, which is another in the batch.
    """
    try:
        yield
    except ScopeParamShapeError as error:
        if "image" not in spec or spec["image"].shape[1:] == batch["image"].shape[1:]:
            raise
        own, other = ("x".join(map(str, of["image"].shape[1:-1])) for of in (spec, batch))
        raise UserError(
            f"{config.model.name} has parameters for images of {own}, and does not take those of "
            f"{other} too: {error}"
        ) from error


@garbage_waits()
def prepare(
    config: ConfigDict, task: Task, devices: Mesh, spec: Spec, *, total: int, steps_per_epoch: int
) -> Setup:
    """Settles a run of `total` steps.

    Args:
      spec: a batch as shapes.

    Raises:
      UserError: optimiser, schedule or network do not fit each other.
    """
    init = jax.jit(lambda: init_variables(task, config.seed, spec))
    variables = jax.eval_shape(init)
    optimizer.check_statistics(config, task, variables)
    groups = optimizer.groups_of(
        config, task, variables["params"], spec, total=total, steps_per_epoch=steps_per_epoch
    )
    state = jax.eval_shape(partial(_fresh_state, config, task, groups), variables)
    placed = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        mesh.state_shardings(state, devices),
    )
    return Setup(config, task, devices, spec, total, init, groups, variables, placed)
