"""What besides the state decides how a run goes on, and what an evaluation changes of it."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from jaxvision.errors import UserError, unknown
from jaxvision.tasks.base import Metric, Task, metric_of
from jaxvision.train import schedule
from jaxvision.train.state import TrainState


@dataclass
class Progress:
    """Stored in every checkpoint.

    Attributes:
      evaluated: the last step after which validation ran to its end.
      best: value of the metric that names the best checkpoint, at `best_step`.
      stop_best: of the metric that early stopping watches.
      stop_waited: evaluations since it improved.
      stopped: whether early stopping has ended the training.
      records: of the training split: another number is another data set.
      corrupt: names of records that could not be read.
      left_out: objects that did not fit, by the name of their record.
    """

    evaluated: int = -1
    best: float = math.nan
    best_step: int = -1
    stop_best: float = math.nan
    stop_waited: int = 0
    stopped: bool = False
    records: int = 0
    corrupt: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of_meta(cls, meta: Mapping[str, Any]) -> "Progress":
        """As a checkpoint stored it."""
        names = {one.name for one in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in meta["progress"].items() if name in names})


@dataclass(frozen=True)
class Watched:
    """The validation metrics that decide something, by name; "" where nothing is decided.

    Attributes:
      best: names the best checkpoint.
      stop: early stopping.
      plateau: lowers the learning rate.
      declared: what the task says of them.
    """

    best: str
    stop: str
    plateau: str
    declared: Mapping[str, Metric]

    @classmethod
    def of(cls, config: ConfigDict, task: Task, given: set[str]) -> "Watched":
        """As configured.

        Args:
          given: the metrics that evaluation gives.

        Raises:
          UserError: evaluation will not give one, or neither direction of it is better; met here,
            before an epoch has been spent.
        """
        plateau = config.schedule.metric if config.schedule.name == "plateau" else ""
        best = config.checkpoint.best_metric or task.main_metric
        keys = {
            "checkpoint.best_metric": best,
            "train.stop_metric": config.train.stop_metric,
            "schedule.metric": plateau,
        }
        declared = {}
        for key, name in keys.items():
            if not name:
                continue
            if name not in given:
                raise unknown(f"metric in {key}", name, given)
            metric = metric_of(task, name)
            if metric is None or metric.better == "neither":
                raise UserError(f"{key}: neither higher nor lower values of {name!r} are better.")
            declared[name] = metric
        return cls(best, config.train.stop_metric, plateau, declared)

    def improves(self, name: str, new: float, old: float) -> bool:
        """Whether `new` beats `old` (NaN: nothing yet)."""
        if math.isnan(new):
            return False
        higher = self.declared[name].better == "higher"
        return math.isnan(old) or (new > old if higher else new < old)


def react(
    config: ConfigDict,
    state: TrainState,
    progress: Progress,
    result: Mapping[str, float],
    watched: Watched,
    step: int,
) -> TrainState:
    """What an evaluation changes: the best so far, early stopping, the rate on a plateau.

    Updates `progress` in place.
    """
    if watched.improves(watched.best, result[watched.best], progress.best):
        progress.best, progress.best_step = result[watched.best], step
    if watched.plateau:
        sign = 1 if watched.declared[watched.plateau].better == "lower" else -1
        value = result[watched.plateau]
        reduced = schedule.reduce_on_plateau(state.opt_state, value, config, sign)
        state = state.replace(opt_state=reduced)
    if watched.stop:
        if watched.improves(watched.stop, result[watched.stop], progress.stop_best):
            progress.stop_best, progress.stop_waited = result[watched.stop], 0
        else:
            progress.stop_waited += 1
        progress.stopped = progress.stop_waited >= config.train.stop_patience
    progress.evaluated = step
    return state
