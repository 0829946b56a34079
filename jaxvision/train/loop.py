"""The training loop: set up, restore, train, evaluate, save. The only place with side effects."""

import contextlib
import functools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from PIL import Image

from jaxvision import config as configuration
from jaxvision import metrics, pretrained, tasks
from jaxvision.data.loader import Loader, open_stream
from jaxvision.errors import UserError, unknown
from jaxvision.train import compilation, mesh, optimizer
from jaxvision.train.checkpoint import Checkpoints, committed_steps
from jaxvision.train.console import RunConsole, format_metrics
from jaxvision.train.evaluation import evaluate
from jaxvision.train.preemption import Preemption
from jaxvision.train.setup import prepare
from jaxvision.train.state import TrainState
from jaxvision.train.step import init_variables
from jaxvision.train.writers import Writers, write_atomically


@dataclass
class Progress:
    """What besides the state decides how a run goes on; stored in every checkpoint."""

    evaluated: int = -1  # the last step after which validation ran to its end
    best: float = math.nan  # of the metric that names the best checkpoint
    best_step: int = -1
    stop_best: float = math.nan  # of the metric that early stopping watches
    stop_waited: int = 0  # evaluations since it improved
    stopped: bool = False
    records: int = 0  # of the training split: another number is another data set
    corrupt: list[str] = field(default_factory=list)


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of the metric is the better one."""
    return metric.endswith(("loss", "error"))


def improves(new: float, old: float, metric: str) -> bool:
    """Whether `new` beats `old` (NaN: nothing yet)."""
    return math.isnan(old) or (new < old if lower_is_better(metric) else new > old)


def run(config: ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Trains as configured and returns the final metrics of the test split.

    Resumes where the workdir's newest intact checkpoint ends. Writes `config.json`,
    `metrics.jsonl`, `checkpoints/`, `tensorboard/` and `predictions.png` into the workdir.

    Args:
      config: see `jaxvision.config`.
      workdir: created if missing; one experiment each.

    Returns:
      Metrics by plain name (`loss`, `accuracy`, `miou`, ...), empty if the run was cut short.

    Raises:
      UserError: anything that a user can put right: see the message.
    """
    configuration.validate(config)
    workdir = Path(workdir).absolute()
    first = jax.process_index() == 0

    # -- set up: devices, data, task ------------------------------------------------------------
    compilation.use_cache(config.compilation_cache)
    jax.config.update("jax_debug_nans", config.train.debug_nans)
    devices = mesh.make(config)
    batch_size = config.train.batch_size
    eval_size = config.eval.batch_size or batch_size
    mesh.check_batch(batch_size, devices, "train.batch_size", config.optimizer.accumulate)
    mesh.check_batch(eval_size, devices, "eval.batch_size")

    validation_split = config.data.validation or config.data.test
    train_loader = open_loader(config, config.data.train, devices, train=True)
    config = with_classes(config, train_loader.stream.source.class_names)
    valid_loader = open_loader(config, validation_split, devices, train=False)
    if train_loader.batches_per_epoch < 1:
        raise UserError(
            f"train.batch_size={batch_size} is larger than the {train_loader.stream.order.count} "
            f"records of {config.data.train!r}."
        )
    task = tasks.create(config, config.data.classes)
    image_shape = train_loader.stream[0]["image"].shape

    # -- durations ------------------------------------------------------------------------------
    per_epoch = train_loader.batches_per_epoch
    total = configuration.steps_of(config.train.duration, steps_per_epoch=per_epoch)
    if total < 1:
        raise UserError(f"train.duration={config.train.duration!r} is less than one step.")

    def steps(duration: int | str) -> int:
        return configuration.steps_of(duration, steps_per_epoch=per_epoch, total=total)

    eval_every, save_every = steps(config.eval.every), steps(config.checkpoint.every)

    # -- state: fresh, from weights, or from the newest checkpoint -------------------------------
    setup = prepare(config, task, devices, image_shape, total=total, steps_per_epoch=per_epoch)
    eval_step = jax.jit(task.metrics, compiler_options=compilation.compiler_options())
    check_metrics(config, eval_step, setup.variables, valid_loader)
    prepare_workdir(workdir, config, first)
    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep)
    restored = checkpoints.restore(setup.state)
    known: TrainState | None = None
    if restored is not None:
        known, meta = restored
        progress = Progress(**meta["progress"])
        if progress.records != train_loader.stream.order.count:
            raise UserError(
                f"The training split now has {train_loader.stream.order.count} records; when "
                f"{workdir} was begun it had {progress.records}. Use another workdir."
            )
    else:
        progress = Progress(records=train_loader.stream.order.count)
        if config.model.weights or config.model.encoder_weights or config.distillation.model:
            known = setup.state_of(trained_variables(config, task, image_shape))
    start = 0 if known is None else int(known.step)
    train_loader.corrupt.update(progress.corrupt)

    # -- compile --------------------------------------------------------------------------------
    console = RunConsole(total, start, active=first)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(setup.state.params))
    console.say(
        f"{config.model.name}: {parameters:,} parameters ({4 * parameters / 2**20:.1f} MiB), "
        f"{config.task}, {len(config.data.classes)} classes, images "
        f"{'x'.join(map(str, image_shape))}"
    )
    console.say(f"{mesh.describe(devices)}; batch {batch_size}, {per_epoch} steps an epoch")
    batches = train_loader.batches(start, total)
    batch = next(batches, None)
    train_step = None
    if known is None:
        state, train_step = setup.begin(batch)
    else:
        state = known
        if batch is not None and not progress.stopped:
            train_step = setup.compile_step(batch)
    if train_step is not None:
        flops = f", {train_step.flops / batch_size / 1e9:.3g} GFLOP an image"
        console.say(f"Compiled the training step in {train_step.seconds:.1f} s{flops}")
    writers = Writers(workdir, config, start, active=first)
    if start:
        console.say(f"Resumed {workdir} at step {start} of {total}")

    # -- train ----------------------------------------------------------------------------------
    best_metric = config.checkpoint.best_metric or task.main_metric
    log = TrainLog(batch_size, config.train.log_every, step=start)

    def report(upto: int) -> None:
        if record := log.record(upto, setup.schedule, state.opt_state):
            writers.scalars(upto, "train", record)
            console.progress(upto, record)

    def validate() -> bool:
        """Evaluates and reacts to the result; False if SIGTERM cut it short."""
        nonlocal state
        report(step)
        with log.pause():
            found = evaluate(
                eval_step, state.variables(averaged=True), valid_loader.batches(), stop.asked_here
            )
        if found is None:
            return False
        result = metrics.compute(found)
        writers.scalars(step, "validation", result)
        console.say(f"step {step}/{total}  validation: {format_metrics(result)}")
        state = react(config, state, progress, result, best_metric, step)
        return True

    def save() -> None:
        report(step)  # a run that resumes here will not
        log.verify()
        progress.corrupt = sorted(train_loader.corrupt)
        meta = {
            "progress": asdict(progress),
            "config": configuration.to_json(config),
            "image_shape": list(image_shape),
            "loader": {"batches": step, "batch_size": batch_size},
        }
        checkpoints.save(state, meta, best=progress.best_step)

    step, leaving = start, False
    trace = Trace(config.train.profile, workdir / "profile")
    with Preemption() as stop, console:
        try:
            while not leaving:
                eval_due = step > 0 and eval_every and (step % eval_every == 0 or step == total)
                owed = eval_due and progress.evaluated < step
                leaving = (owed and not validate()) or stop.asked(step)
                ending = step >= total or progress.stopped or leaving
                new_best = owed and progress.best_step == step
                if step > start and (ending or new_best or (save_every and not step % save_every)):
                    save()
                if ending or train_step is None:
                    break
                trace.before(step + 1, state)
                state, accumulators = train_step.call(state, batch)
                step += 1
                log.add(step, accumulators)
                batch = next(batches, None)
                report(step - 1)
            trace.end(state)
        except NotFiniteError as error:
            checkpoints.wait()  # one that is still being written counts
            last = checkpoints.steps()
            kept = f"step {last[-1]} in {checkpoints.folder}" if last else "none"
            raise UserError(f"{error} Last good checkpoint: {kept}.") from error
        except BaseException:
            writers.close()
            raise
        finally:
            batches.close()
            checkpoints.wait()

    def stopped() -> dict[str, float]:
        writers.close()
        checkpoints.close()
        console.say(f"Stopped by SIGTERM after step {step} of {total}; saved. Run again to resume.")
        return {}

    if leaving:
        return stopped()

    # -- test -----------------------------------------------------------------------------------
    result: dict[str, float] = {}
    skipped = train_loader.corrupt | valid_loader.corrupt
    if config.data.test:
        # Where validation is the test split itself, choosing by it would be choosing by the answer.
        chosen = bool(config.data.validation) and progress.best_step not in (-1, step)
        if chosen and progress.best_step in checkpoints.steps():
            restored = checkpoints.restore(setup.state, progress.best_step)
            assert restored is not None  # a given step is restored or refused
            state = restored[0]
            console.say(f"Testing the best checkpoint, of step {progress.best_step}")
        variables = state.variables(averaged=True)
        test_loader = valid_loader
        if config.data.test != validation_split:
            test_loader = open_loader(config, config.data.test, devices, train=False)
        with Preemption() as stop:
            found = evaluate(eval_step, variables, test_loader.batches(), stop.asked_here)
        if found is None:
            return stopped()
        result = metrics.compute(found)
        writers.scalars(step, "test", result)
        console.say(f"test: {format_metrics(result, everything=True)}")
        if config.eval.pictures and jax.process_count() == 1:
            picture = predictions(task, variables, test_loader, config.eval.pictures)
            writers.picture(step, "test", "predictions", picture)
            Image.fromarray(picture).save(workdir / "predictions.png")
        skipped |= test_loader.corrupt
    if skipped:
        names = "\n  ".join(sorted(skipped)[:20])
        where = " on this process" if jax.process_count() > 1 else ""
        console.say(f"Skipped {len(skipped)} unreadable images{where}:\n  {names}")
    writers.close()
    checkpoints.close()
    console.say(f"Results in {workdir}")
    return result


# -- parts of the story ---------------------------------------------------------------------------


def open_loader(config: ConfigDict, split: str, devices: Mesh, *, train: bool) -> Loader:
    """Batches of a split over the mesh, shuffled for training or padded for evaluation."""
    stream = open_stream(
        config.data,
        split,
        seed=config.seed,
        train=train,
        annotations=tasks.annotations(config.task),
    )
    size = config.train.batch_size if train else config.eval.batch_size or config.train.batch_size
    return Loader(
        stream,
        size,
        mesh.batch_sharding(devices),
        threads=config.data.threads,
        workers=config.data.workers,
        prefetch=config.data.prefetch,
    )


def with_classes(config: ConfigDict, class_names: tuple[str, ...]) -> ConfigDict:
    """The configuration with the class names that the data gave, so that predicting needs none."""
    if config.data.classes:
        return config
    config = config.copy_and_resolve_references()
    config.data.classes = tuple(class_names)
    return config


def trained_variables(config: ConfigDict, task: Any, shape: Any) -> dict[str, Any]:
    """Variables to start from: fresh ones with what the configured weights hold, and the teacher's.

    Raises:
      UserError: weights cannot be had or do not fit.
    """
    variables = dict(jax.jit(lambda: init_variables(task, config.seed, shape))())
    teacher = variables.pop("teacher", None)
    if config.model.encoder_weights:
        variables = pretrained.load_encoder(
            config.model.name,
            config.model.options.to_dict(),
            config.model.encoder_weights,
            variables,
        )
    if config.model.weights:
        variables = pretrained.load_into(
            config.model.name,
            task.model,
            config.model.weights,
            variables,
            fine_tune=True,
            reset_classifier=config.model.reset_classifier,
        )
    if teacher is not None:
        network, weights = config.distillation.model, config.distillation.weights
        teacher = pretrained.load_into(network, task.teacher.model, weights, teacher)
        variables["teacher"] = teacher
    return variables


def prepare_workdir(workdir: Path, config: ConfigDict, first: bool) -> None:
    """Makes the workdir and its `config.json`, or checks that it belongs to this experiment.

    Raises:
      UserError: it holds another experiment (which keys differ is listed), or cannot be written.
    """
    stored = workdir / "config.json"
    begun = committed_steps(workdir / "checkpoints")
    if stored.exists() and begun:  # what failed before its first checkpoint may be put right
        different = configuration.differences(configuration.from_json(stored.read_text()), config)
        if different and not config.train.allow_changed_config:
            lines = [f"  {key}: {old!r} -> {new!r}" for key, (old, new) in different.items()]
            raise UserError(
                f"{workdir} holds a run with another configuration:\n"
                + "\n".join(lines)
                + "\nUse another --workdir, or --config.train.allow_changed_config=true."
            )
    if first:
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(stored, configuration.to_json(config) + "\n")


def check_metrics(config: ConfigDict, eval_step: Any, variables: Any, loader: Loader) -> None:
    """Refuses metrics to watch that evaluation will not give, before an epoch has been spent.

    Args:
      variables: shapes of the model's variables.

    Raises:
      UserError: naming the key, the metric and those near it.
    """
    watched = {
        "checkpoint.best_metric": config.checkpoint.best_metric,
        "train.stop_metric": config.train.stop_metric,
        "schedule.metric": config.schedule.metric if config.schedule.name == "plateau" else "",
    }
    if not any(watched.values()):
        return
    row = jax.tree.map(np.asarray, loader.stream[0])
    batch = {
        key: jax.ShapeDtypeStruct((loader.batch_size, *value.shape), value.dtype)
        for key, value in row.items()
    }
    sums = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), eval_step.eval_shape(variables, batch)
    )
    given = metrics.compute(sums)
    for key, metric in watched.items():
        if metric and metric not in given:
            raise unknown(f"metric in {key}", metric, given)


def react(
    config: ConfigDict,
    state: TrainState,
    progress: Progress,
    result: Mapping[str, float],
    best_metric: str,
    step: int,
) -> TrainState:
    """What an evaluation changes: the best so far, early stopping, the rate on a plateau.

    Updates `progress` in place.
    """
    if improves(result[best_metric], progress.best, best_metric):
        progress.best, progress.best_step = result[best_metric], step
    if config.schedule.name == "plateau":
        watched = config.schedule.metric
        sign = 1 if lower_is_better(watched) else -1
        reduced = optimizer.reduce_on_plateau(state.opt_state, result[watched], config, sign)
        state = state.replace(opt_state=reduced)
    if stop_metric := config.train.stop_metric:
        if improves(result[stop_metric], progress.stop_best, stop_metric):
            progress.stop_best, progress.stop_waited = result[stop_metric], 0
        else:
            progress.stop_waited += 1
        progress.stopped = progress.stop_waited >= config.train.stop_patience
    progress.evaluated = step
    return state


class NotFiniteError(Exception):
    """A training metric became NaN or infinite."""


class TrainLog:
    """Accumulators of the steps since the last record.

    They are fetched one step late, when the next step has been dispatched: the device never waits.
    (Before an evaluation or a checkpoint, which wait for all steps anyway, they are not late.)
    """

    def __init__(self, batch_size: int, every: int, step: int):
        self._batch_size, self._every, self._last = batch_size, every, step
        self._pending: list[tuple[int, Any]] = []
        self._since = time.perf_counter()

    def add(self, step: int, accumulators: Any) -> None:
        """Keeps the (not yet computed) accumulators of a step."""
        self._pending.append((step, accumulators))

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves the time spent inside out of `images_per_second`; waits for all steps first."""
        self.verify()
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def verify(self) -> None:
        """Waits for all steps so far.

        Raises:
          NotFiniteError: one of them gave NaN or infinity.
        """
        self._pending = jax.device_get(self._pending)
        for step, accumulators in self._pending:
            for name, value in metrics.compute(accumulators).items():
                if not math.isfinite(value):
                    raise NotFiniteError(f"{name} is {value} at step {step}.")

    def record(self, step: int, schedule: Any, opt_state: Any) -> dict[str, float] | None:
        """The metrics up to `step` if a record is due there.

        Raises:
          NotFiniteError: a metric is NaN or infinite.
        """
        if step % self._every or step <= self._last:
            return None
        newest = [entry for entry in self._pending if entry[0] > step]
        self._pending = [entry for entry in self._pending if entry[0] <= step]
        self.verify()
        total = functools.reduce(metrics.add, (accumulators for _, accumulators in self._pending))
        now = time.perf_counter()
        record = metrics.compute(total)
        record["learning_rate"] = float(schedule(step - 1)) * optimizer.plateau_factor(opt_state)
        record["images_per_second"] = (step - self._last) * self._batch_size / (now - self._since)
        self._pending, self._last, self._since = newest, step, now
        return record


class Trace:
    """A profiler trace of steps `span[0]` to `span[1]`, which TensorBoard reads; () for none."""

    def __init__(self, span: Sequence[int], folder: Path):
        self._span, self._folder, self._running = span, folder, False

    def before(self, step: int, state: TrainState) -> None:
        """Starts or ends the trace if it is time to; `state` is that before `step`."""
        if self._span and step == self._span[0]:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif self._running and step > self._span[1]:
            self.end(state)

    def end(self, state: TrainState) -> None:
        """Ends a running trace, once its last step has been computed."""
        if self._running:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._running = False


def predictions(task: Any, variables: Any, loader: Loader, count: int) -> np.ndarray:
    """A picture of the first `count` records of a split with what the model says of them."""
    stream = loader.stream
    batch = stream.batch(range(min(count, stream.order.count)))
    predict = jax.jit(task.predict, compiler_options=compilation.compiler_options())
    outputs = jax.device_get(predict(variables, batch["image"]))
    return task.visualize(batch["image"], outputs, batch)
