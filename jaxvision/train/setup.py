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
from jaxvision.train.state import TrainState
from jaxvision.train.step import init_state, init_variables, make_train_step


@dataclass(frozen=True)
class Setup:
    """A run that has not begun; `prepare` makes it.

    Attributes:
      config: the run's.
      task: what is trained.
      devices: the mesh that it is trained on.
      image_shape: [height, width, channels] of the images that it is given.
      schedule: the learning rate of each step.
      update: the optimiser.
      variables: the network's variables as shapes.
      state: the training state as shapes, with the sharding of each array.
    """

    config: ConfigDict
    task: Task
    devices: Mesh
    image_shape: tuple[int, int, int]
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

    def drawn(self) -> Callable[[], TrainState]:
        """Starts drawing the initial values in a thread; what it returns waits for the state.

        Of large networks that takes seconds, in which the training step can be compiled.
        """
        draw = jax.jit(lambda: self._fresh(self._variables()), out_shardings=self.shardings)
        compiled = draw.lower().compile()
        thread = ThreadPoolExecutor(1, thread_name_prefix="initial-state")
        state = thread.submit(compiled)
        thread.shutdown(wait=False)
        return state.result

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

    def _variables(self) -> dict[str, Any]:
        return init_variables(self.task, self.config.seed, self.image_shape)

    def _fresh(self, variables: dict[str, Any]) -> TrainState:
        return init_state(variables, self.update, ema=self.config.optimizer.ema > 0)


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
    variables = jax.eval_shape(lambda: init_variables(task, config.seed, image_shape))
    schedule = optimizer.learning_rate(config, total=total, steps_per_epoch=steps_per_epoch)
    depths = optimizer.depths_for(config, task.model, image_shape)
    update = optimizer.build(config, variables["params"], schedule, depths)
    state = jax.eval_shape(lambda v: init_state(v, update, config.optimizer.ema > 0), variables)
    placed = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        mesh.state_shardings(state, devices),
    )
    return Setup(config, task, devices, image_shape, schedule, update, variables, placed)
