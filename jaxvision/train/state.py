"""The one pytree that a training step maps to the next."""

from typing import Any

import jax
from flax import struct


class TrainState(struct.PyTreeNode):
    """Everything that decides what a step computes.

    Attributes:
      step: number of steps made, i32 [].
      params: parameter tree, float32.
      model_state: the other collections (`{"batch_stats": ...}`), possibly empty; a teacher too.
      opt_state: state of the optimiser of each group of parameters, by its name.
      ema: exponential moving averages of the variables that evaluation takes, or None.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    ema: Any = None

    def variables(self, averaged: bool = False) -> dict[str, Any]:
        """What `module.apply` takes; with `averaged`, averages where there are any."""
        averages = self.ema if averaged and self.ema is not None else {}
        return {"params": self.params, **self.model_state, **averages}
