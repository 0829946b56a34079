"""Pictures that a run draws of its own predictions or samples, as its task reports them."""

from itertools import islice
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision import tasks
from jaxvision.data.loader import Loader
from jaxvision.tasks.base import Task
from jaxvision.train import compilation
from jaxvision.train.step import SAMPLING, stream


class Pictures:
    """Draws what the network says of the first records of a split, or samples of it.

    Compiled once. Nothing is drawn where `eval.pictures` is 0, where the task shows nothing, or
    with several processes.

    Attributes:
      count: how many images.
      name: of the pictures, "predictions" or what the task's report, or the task, calls them.
    """

    def __init__(self, config: ConfigDict, task: Task):
        self._task, self.count = task, config.eval.pictures
        self._report = tasks.report(config.task)
        self._key = stream(config.seed, SAMPLING)
        options = compilation.compiler_options()
        self._predict: Any = None
        shown = getattr(task, "pictured", None) or getattr(task, "predict", None)
        if shown is not None:
            self._predict = jax.jit(shown, compiler_options=options)
        elif hasattr(task, "sample"):
            self._predict = jax.jit(
                lambda variables, _, key: {"image": task.sample(variables, key, self.count)},
                compiler_options=options,
            )
        usual = getattr(self._report, "PICTURE", "predictions")
        self.name = getattr(task, "picture_name", usual)

    @property
    def wanted(self) -> bool:
        drawn = hasattr(self._report, "picture") and self._predict is not None
        return drawn and self.count > 0 and jax.process_count() == 1

    def draw(self, variables: Any, loader: Loader) -> np.ndarray:
        """uint8 [h, w, 3]."""
        records = loader.stream
        batch = records.batch(list(islice(records.order.held(), self.count)))
        return self._report.picture(self._task, batch, self.predict(variables, batch))

    def predict(self, variables: Any, batch: Any) -> Any:
        """What is shown of a batch of `count` images, on the host."""
        return jax.device_get(self._predict(variables, batch, self._key))
