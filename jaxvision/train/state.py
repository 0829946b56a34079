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
      ema: exponential moving average of `params`, or None.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    ema: Any = None

    def variables(self, averaged: bool = False) -> dict[str, Any]:
        """What `module.apply` takes; with `averaged`, the averaged weights where there are any."""
        params = self.ema if averaged and self.ema is not None else self.params
        return {"params": params, **self.model_state}
