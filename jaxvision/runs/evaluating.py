"""Evaluating a trained network on a split."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax

from jaxvision import tasks
from jaxvision.data import notices
from jaxvision.data.loader import Loader
from jaxvision.errors import UserError
from jaxvision.runs.run import Run
from jaxvision.train import compilation, mesh
from jaxvision.train.beginning import facts_of, open_loader
from jaxvision.train.evaluation import Evaluator

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation of a split gave, and what it was made with.

    Attributes:
      run: the network, with the facts of the split where it had none.
      metrics: by plain name.
      sums: accumulators by name.
      evaluator: holds the rows.
      loader: of the split.
      variables: on all devices.
    """

    run: Run
    metrics: dict[str, float]
    sums: dict[str, Any]
    evaluator: Evaluator
    loader: Loader
    variables: Any


def evaluate(
    run: Run, split: str = "", output: Path | None = None
) -> tuple[dict[str, float], dict[str, Any]]:
    """(metrics by plain name, sums) of a split, over all devices.

    Args:
      run: the trained network.
      split: `data.test` by default.
      output: a folder for the pictures that the task's report draws of an evaluation.

    Raises:
      UserError: data, weights or configuration are wrong, or the task draws no such pictures.
    """
    figures = getattr(tasks.report(run.config.task), "figures", None)
    if output is not None and figures is None:
        raise UserError(f"There are no pictures of an evaluation of {run.config.task}.")
    found = evaluation_of(run, split)
    if output is not None and figures is not None:
        output.mkdir(parents=True, exist_ok=True)
        figures(found.run.task, found.evaluator.rows, output)
    return found.metrics, found.sums


def evaluation_of(run: Run, split: str = "") -> Evaluation:
    """The evaluation of a split, `data.test` by default; what could not be read is said.

    Raises:
      UserError: data, weights or configuration are wrong.
    """
    config = run.config.copy_and_resolve_references()
    split = split or config.data.test
    if not split:
        raise UserError("The configuration names no test split; give --split.")
    config.mesh.data, config.mesh.fsdp = -1, 1
    config.data.classes = tuple(config.data.classes) or tuple(run.facts.class_names)
    compilation.use_cache(config.compilation_cache)
    devices = mesh.make(config)
    mesh.check_batch(config.eval.batch_size or config.train.batch_size, devices, "eval.batch_size")
    loader = open_loader(config, split, devices, train=False, facts=run.facts)
    if run.folder is None or not run.facts.class_names:  # weights alone know nothing of the data
        run = dataclasses.replace(run, facts=facts_of(config, loader))
    variables = run.variables_for(loader.stream[0]["image"].shape)
    variables = jax.device_put(variables, mesh.replicated(devices))
    evaluator = Evaluator(run.task, config.seed)
    found = evaluator(variables, loader.batches())
    assert found is not None  # nobody cancels it
    if loader.corrupt:
        first = ", ".join(sorted(loader.corrupt)[:20])
        logger.warning("Skipped %d unreadable images: %s", len(loader.corrupt), first)
    if loader.left_out:
        logger.warning(notices.of_left_out(loader.left_out, config.data.max_instances))
    return Evaluation(run, *found, evaluator, loader, variables)
