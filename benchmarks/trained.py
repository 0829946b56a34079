"""What the comparisons of trained networks share: their metrics, and how fast they are."""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxvision.tasks import configuration
from jaxvision.train import run
from jaxvision.train.compilation import compiler_options
from jaxvision.train.writers import read_metrics

ROUNDS = 5


def ended(workdir: Path) -> dict[str, Any] | None:
    """The metrics of the test scenes, if the run has come to them."""
    file = workdir / "metrics.jsonl"
    tested = [r for r in read_metrics(file) if r["split"] == "test"] if file.exists() else []
    return tested[-1] if tested else None


def metrics_of(
    config: str, workdir: Path, changes: Mapping[str, str], train: bool
) -> dict[str, Any] | None:
    """The test's metrics of a run, which is trained or resumed if it may be; else None.

    Args:
      config: file and variant.
      workdir: of the run.
      changes: of the configuration, as on the command line.
      train: whether it may be.
    """
    if train and ended(workdir) is None:
        run(configuration.load(config, dict(changes)), workdir)
    return ended(workdir)


def seconds(call: Callable[[], Any]) -> float:
    """Of the fastest of some calls, after one that compiles."""
    jax.block_until_ready(call())
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(call())
        found.append(time.perf_counter() - start)
    return min(found)


def learning_seconds(trained: Any, batch: dict[str, Any]) -> float:
    """Of loss and gradients of a batch."""
    variables = dict(trained.task.init(jax.random.key(0), batch)) | trained.variables
    params = variables.pop("params")

    def loss(params: Any) -> jax.Array:
        objective, _ = trained.task.loss(params, variables, batch, jax.random.key(0))
        return objective.value

    learn = jax.jit(jax.value_and_grad(loss), compiler_options=compiler_options())
    return seconds(lambda: learn(params))


def predicting_seconds(trained: Any, batch: dict[str, Any]) -> float:
    """Of what is found in a batch."""
    find = jax.jit(trained.task.predict, compiler_options=compiler_options())
    return seconds(lambda: find(trained.variables, batch, jax.random.key(0)))


def parser_of(about: str, networks: Iterable[str]) -> argparse.ArgumentParser:
    """Of a command that trains networks, or some, in a folder of runs."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=networks, metavar="NAME")
    parser.add_argument("--ended", action="store_true", help="train none")
    return parser


def arguments(about: str, networks: Iterable[str]) -> argparse.Namespace:
    """What such a command is given."""
    return parser_of(about, networks).parse_args()


def all_runs(
    options: argparse.Namespace,
    networks: Iterable[str],
    config: Path,
    prefix: str,
    overrides: Mapping[str, str] | None = None,
    own: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """(network, folder of its run, metrics), each trained to its end or left out.

    Args:
      options: of `arguments`.
      networks: variants of the configuration.
      config: its file.
      prefix: of the folders' names.
      overrides: of the configuration, as on the command line.
      own: overrides of single networks.
    """
    for name in options.only or networks:
        workdir = options.runs / f"{prefix}_{name}"
        changes = {**(overrides or {}), **(own or {}).get(name, {})}
        metrics = metrics_of(f"{config}:{name}", workdir, changes, not options.ended)
        if metrics is not None:
            yield name, workdir, metrics
            jax.clear_caches()
