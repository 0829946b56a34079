"""What a run settles before its first step: the update, the state's shape, the compiled step."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvision.tasks import Task
from jaxvision.train import compilation, mesh, optimizer
from jaxvision.train.memory import garbage_waits
from jaxvision.train.state import TrainState
from jaxvision.train.step import init_state, init_variables, make_train_step


@dataclass(frozen=True)
class Setup:
    """A run that has not begun; `prepare` makes it.

    Attributes:
      config: the run's.
      task: what is trained.
      devices: the mesh that it is trained on.
      init: draws the network's variables; jitted, so that it is traced once.
      schedule: the learning rate of each step.
      update: the optimiser.
      variables: the network's variables as shapes.
      state: the training state as shapes, with the sharding of each array.
    """

    config: ConfigDict
    task: Task
    devices: Mesh
    init: Callable[[], dict[str, Any]]
    schedule: optax.Schedule
    update: optax.GradientTransformation
    variables: dict[str, Any]
    state: TrainState

    @property
    def shardings(self) -> Any:
        """Of the state's arrays."""
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
        """The training step, for batches like this one; it takes over the state's memory."""
        step = make_train_step(
            self.task,
            self.update,
            seed=self.config.seed,
            accumulate=self.config.optimizer.accumulate,
            ema=self.config.optimizer.ema,
        )
        return compilation.compile_now(
            step, self.state, batch, donate=(0,), out_shardings=(self.shardings, None)
        )

    def _fresh(self, variables: dict[str, Any]) -> TrainState:
        return init_state(variables, self.update, ema=self.config.optimizer.ema > 0)


@garbage_waits()
def prepare(
    config: ConfigDict,
    task: Task,
    devices: Mesh,
    image_shape: tuple[int, int, int],
    *,
    total: int,
    steps_per_epoch: int,
) -> Setup:
    """Settles a run of `total` steps.

    Raises:
      UserError: optimiser, schedule or network do not fit each other.
    """
    init = jax.jit(lambda: init_variables(task, config.seed, image_shape))
    variables = jax.eval_shape(init)
    schedule = optimizer.learning_rate(config, total=total, steps_per_epoch=steps_per_epoch)
    depths = optimizer.depths_for(config, task.model, image_shape)
    update = optimizer.build(config, variables["params"], schedule, depths)
    state = jax.eval_shape(lambda v: init_state(v, update, config.optimizer.ema > 0), variables)
    placed = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        mesh.state_shardings(state, devices),
    )
    return Setup(config, task, devices, init, schedule, update, variables, placed)
