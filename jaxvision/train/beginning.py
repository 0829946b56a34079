"""How a run begins: its data, its durations, the state that it starts from."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvision import tasks
from jaxvision.config import steps_of
from jaxvision.data.facts import Facts
from jaxvision.data.loader import Loader
from jaxvision.data.stream import INTERNAL, open_stream
from jaxvision.errors import UserError
from jaxvision.tasks.base import Spec, Task
from jaxvision.train import mesh
from jaxvision.train.checkpoint import Checkpoints
from jaxvision.train.progress import Progress
from jaxvision.train.setup import Setup, prepare
from jaxvision.train.state import TrainState
from jaxvision.train.weights import initial_variables
from jaxvision.train.workdir import check_records, with_classes


def open_loader(
    config: ConfigDict, split: str, devices: Mesh, *, train: bool, facts: Facts | None = None
) -> Loader:
    """Batches of a split over the mesh, shuffled for training or padded for evaluation.

    Where transforms have buckets, each batch has the shape of one.

    Args:
      config: of the run.
      split: as `data.train`.
      devices: a mesh.
      train: see above.
      facts: of the run's data, as far as they are known.

    Raises:
      UserError: whatever is wrong with the data.
    """
    stream = open_stream(
        config.data,
        split,
        seed=config.seed,
        train=train,
        annotations=tasks.annotations(config.task),
        unused=tasks.TASKS[config.task].task().unused_by(config),
        vocabulary=None if facts is None else facts.vocabulary,
        palette=() if facts is None else facts.palette,
    )
    size = config.train.batch_size if train else config.eval.batch_size or config.train.batch_size
    return Loader(
        stream.grouped(size),
        size,
        mesh.batch_sharding(devices),
        threads=config.data.threads,
        workers=config.data.workers,
        prefetch=config.data.prefetch,
    )


@dataclass(frozen=True)
class Data:
    """The data of a run.

    Attributes:
      train, validation: loaders.
      facts: what the run keeps of them.
      spec: a training batch as shapes.
    """

    train: Loader
    validation: Loader
    facts: Facts
    spec: Spec


def open_data(config: ConfigDict, devices: Mesh, known: Facts | None = None) -> Data:
    """Opens the splits for training and validation.

    Args:
      config: of the run.
      devices: a mesh.
      known: the facts of a run that has begun, whose vocabulary and palette are not learned again.

    Raises:
      UserError: whatever is wrong with the data, or there is less than a batch of them.
    """
    train = open_loader(config, config.data.train, devices, train=True, facts=known)
    facts = facts_of(config, train)
    named = with_classes(config, facts)
    validation = open_loader(
        named, config.data.validation or config.data.test, devices, train=False, facts=facts
    )
    if train.batches_per_epoch < 1:
        raise UserError(
            f"train.batch_size={config.train.batch_size} is larger than the "
            f"{train.stream.order.count} records of {config.data.train!r}."
        )
    return Data(train, validation, facts, spec_of(train))


def facts_of(config: ConfigDict, loader: Loader) -> Facts:
    """What a run keeps of its training data."""
    facts = Facts.of_stream(loader.stream)
    if config.data.classes:
        facts = dataclasses.replace(facts, class_names=tuple(config.data.classes))
    return facts


def spec_of(loader: Loader) -> Spec:
    """A batch of the loader as shapes, on the loader's devices; see `Stream.example`."""
    batch = loader.stream.example()
    return {
        key: jax.ShapeDtypeStruct(
            (loader.batch_size, *value.shape[1:]), jnp.dtype(value.dtype), sharding=loader.sharding
        )
        for key, value in batch.items()
        if key not in INTERNAL
    }


@dataclass(frozen=True)
class Plan:
    """The durations of a run in steps; 0 is never."""

    total: int
    per_epoch: int
    evaluate_every: int
    save_every: int
    log_every: int

    @classmethod
    def of(cls, config: ConfigDict, data: Data) -> "Plan":
        """As configured.

        Raises:
          UserError: the training is less than one step.
        """
        per_epoch = data.train.batches_per_epoch
        total = steps_of(config.train.duration, steps_per_epoch=per_epoch)
        if total < 1:
            raise UserError(f"train.duration={config.train.duration!r} is less than one step.")
        evaluate, save = (
            steps_of(duration, steps_per_epoch=per_epoch, total=total)
            for duration in (config.eval.every, config.checkpoint.every)
        )
        log = min(config.train.log_every, per_epoch)
        if total < 4 * log:  # a short training has a curve all the same
            log = max(1, total // 10)
        return cls(total, per_epoch, evaluate, save, log)


def restored(
    checkpoints: Checkpoints, setup: Setup, data: Data
) -> tuple[TrainState, Progress] | None:
    """The state and progress of the newest intact checkpoint; None if there is none.

    Raises:
      UserError: it is of another model, or of other data.
    """
    found = checkpoints.restore(setup.state)
    if found is None:
        return None
    state, meta = found
    progress = Progress.of_meta(meta)
    check_records(checkpoints.folder.parent, progress.records, data.train.stream.order.count)
    return state, progress


def starting_state(
    setup: Setup, config: ConfigDict, task: Task, data: Data
) -> tuple[TrainState | None, str]:
    """The state that starts from the configured weights, and a line about them; None if none are.

    Raises:
      UserError: weights cannot be had or do not fit.
    """
    found = initial_variables(config, task, data.spec)
    return (None, "") if found is None else (setup.state_of(found[0]), found[1])


def settle(config: ConfigDict, known: Facts | None = None) -> tuple[Data, Plan, Setup]:
    """What a run needs before its first step: devices, data, durations, task and update.

    Args:
      config, known: see `open_data`.

    Raises:
      UserError: mesh, data, network, optimiser or durations are wrong, or do not fit each other.
    """
    devices = mesh.make(config)
    mesh.check_batches(config, devices)
    data = open_data(config, devices, known)
    task = tasks.create(config, data.facts)
    plan = Plan.of(config, data)
    setup = prepare(
        config, task, devices, data.spec, total=plan.total, steps_per_epoch=plan.per_epoch
    )
    return data, plan, setup


def describe(config: ConfigDict, task: Task, setup: Setup, data: Data, plan: Plan) -> Iterator[str]:
    """Lines about the data that were found, network, task, devices and what is to be known."""
    for split, loader in (("training", data.train), ("validation", data.validation)):
        yield f"{split}: {loader.stream.describe()}"
    sizes = [leaf.size for leaf in jax.tree.leaves(setup.state.params)]
    classes = f"{len(task.class_names)} classes, " if task.class_names else ""
    shapes: Mapping[str, Any] = setup.spec
    image = next((key for key in shapes if key == "image" or key.startswith("views")), "image")
    yield (
        f"{config.model.name}: {sum(sizes):,} parameters ({4 * sum(sizes) / 2**20:.1f} MiB), "
        f"{config.task}, {classes}images {'x'.join(map(str, shapes[image].shape[1:]))}"
    )
    size = config.train.batch_size
    yield f"{mesh.describe(setup.devices)}; batch {size}, {plan.per_epoch} steps an epoch"
    yield from task.notes(config)
