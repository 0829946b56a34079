"""The training loop: begin, train, evaluate, save, test. The only place with side effects."""

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from jaxvision.data import notices
from jaxvision.errors import UserError
from jaxvision.tasks import configuration
from jaxvision.train import beginning, compilation, optimizer
from jaxvision.train import workdir as folder
from jaxvision.train.beginning import Data, Plan
from jaxvision.train.checkpoint import Checkpoints
from jaxvision.train.console import RunConsole, format_metrics
from jaxvision.train.evaluation import Evaluator
from jaxvision.train.log import NotFiniteError, Trace, TrainLog
from jaxvision.train.pictures import Pictures
from jaxvision.train.preemption import Preemption
from jaxvision.train.progress import Progress, Watched, react
from jaxvision.train.reports import Reports, Subject
from jaxvision.train.setup import Setup, sizes_checked
from jaxvision.train.state import TrainState
from jaxvision.train.weights import chooses, spec_to_json
from jaxvision.train.writers import Writers


def run(config: ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Trains as configured and returns the final metrics of the test split.

    Resumes where the workdir's newest intact checkpoint ends. Writes `config.json`, `facts.json`,
    `metrics.jsonl`, `report.html`, `checkpoints/`, `tensorboard/`, `pictures/` and
    `predictions.png` into it.

    Args:
      config: see `jaxvision.config`.
      workdir: created if missing; one experiment each.

    Returns:
      Metrics by plain name (`loss`, `accuracy`, `miou`, ...), empty if the run was cut short.

    Raises:
      UserError: anything that a user can put right: see the message.
    """
    configuration.validate(config)
    configuration.to_json(config)  # what cannot be stored is met here
    optimizer.check_names(config)
    workdir = folder.checked(workdir)
    begun = folder.check(workdir, config)
    compilation.use_cache(config.compilation_cache)
    jax.config.update("jax_debug_nans", config.train.debug_nans)
    known = None if begun is None else folder.stored_facts(workdir, begun)
    data, plan, setup = beginning.settle(config, known)
    evaluator = Evaluator(setup.task, config.seed)
    # As they will be placed: otherwise the evaluation is traced once more for its first batch.
    placed = setup.state.variables(averaged=True)
    evaluated = beginning.spec_of(data.validation)
    with sizes_checked(config, data.spec, evaluated):
        given = evaluator.names(placed, evaluated)
    watched = Watched.of(config, setup.task, given)
    folder.check(workdir, config, data.facts)

    with folder.locked(workdir):
        # Another may have begun there meanwhile.
        news = folder.extended(folder.check(workdir, config, data.facts), config)
        name = folder.identity(workdir)
        checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep, name)
        with contextlib.closing(checkpoints):
            training = _Training(
                workdir, config, data, plan, setup, evaluator, watched, checkpoints, news
            )
            with training.reports:
                return training.test() if training.until_the_end() else {}


class _Training:
    """A run under way: what its loop, its evaluations and its test share."""

    def __init__(
        self,
        workdir: Path,
        config: ConfigDict,
        data: Data,
        plan: Plan,
        setup: Setup,
        evaluator: Evaluator,
        watched: Watched,
        checkpoints: Checkpoints,
        news: str = "",
    ):
        self.workdir, self.config, self.data, self.plan = workdir, config, data, plan
        self.setup, self.evaluator, self.watched = setup, evaluator, watched
        self.checkpoints, self.task = checkpoints, setup.task
        self.state: TrainState | None = None
        self.steps: dict[Any, compilation.Compiled] = {}  # by shapes of their batches
        self.news = [news]
        self.progress = Progress(records=data.train.stream.order.count)
        if (found := beginning.restored(checkpoints, setup, data)) is not None:
            self.state, self.progress = found
        else:
            self.state, weights = beginning.starting_state(setup, config, self.task, data)
            self.news.append(weights)
        folder.write(workdir, config, data.facts)
        self.step = self.start = 0 if self.state is None else int(self.state.step)
        data.train.corrupt.update(self.progress.corrupt)
        data.train.left_out.update(self.progress.left_out)
        first = jax.process_index() == 0
        self.console = RunConsole(plan.total, self.start, tuple(self.task.metrics), active=first)
        self.pictures = Pictures(config, self.task)
        self.log = TrainLog(
            self.task, setup.groups, config.train.batch_size, plan.log_every, self.step
        )
        self.writers = Writers(workdir, config, self.start, active=first)
        subject = Subject(
            workdir,
            config,
            data.facts,
            self.task,
            (data.train.stream, data.validation.stream),
            setup.spec["image"].shape[1:] if "image" in setup.spec else (),
            setup.variables,
        )
        self.reports = Reports(subject, self.pictures, plan.total, first and config.log.report)

    def until_the_end(self) -> bool:
        """Trains; False if SIGTERM or Ctrl-C cut it short."""
        total, save_every = self.plan.total, self.plan.save_every
        batches = self.data.train.batches(self.start, total)
        batch = next(batches, None)
        self._begin(batch)
        leaving = False
        trace = Trace(self.config.train.profile, self.workdir / "profile")
        with Preemption() as stop, self.console:
            try:
                while not leaving:
                    owed = self._owes_evaluation()
                    leaving = (owed and not self._validate(stop)) or stop.asked(self.step)
                    ending = self.step >= total or self.progress.stopped or leaving
                    new_best = owed and self.progress.best_step == self.step
                    save_due = save_every and not self.step % save_every
                    if self.step > self.start and (ending or new_best or save_due):
                        with stop.writing():
                            self._save()
                    if ending or batch is None:
                        break
                    train_step = self._step_for(batch)
                    trace.before(self.step + 1, self._state)
                    self.state, sums = train_step.call(self.state, batch)
                    self.step += 1
                    self.log.add(self.step, sums)
                    self.console.step(self.step)
                    batch = next(batches, None)
                    self._record(self.step - 1)
                trace.end(self._state)
            except NotFiniteError as error:
                raise self._not_finite(error) from error
            except BaseException:
                self.writers.close()
                raise
            finally:
                with stop.writing():
                    batches.close()
                    self.checkpoints.wait()
        return not leaving or self._stopped(stop)

    @property
    def _state(self) -> TrainState:
        assert self.state is not None  # from the first step on
        return self.state

    def _begin(self, batch: Any) -> None:
        """Compiles the step for the first batch, if one is left; draws a state where none is."""
        say = self.console.say
        for line in beginning.describe(self.config, self.task, self.setup, self.data, self.plan):
            say(line)
        for line in filter(None, self.news):
            say(line)
        if batch is not None and not self.progress.stopped:
            with self.console.waiting("Compiling the training step"):
                if self.state is None:
                    self.state, step = self.setup.begin(batch)
                else:
                    step = self.setup.compile_step(batch)
            self._keep(step, batch)
        if self.start:
            say(f"Resumed {self.workdir} at step {self.start} of {self.plan.total}")

    def _step_for(self, batch: Any) -> compilation.Compiled:
        """The training step for batches of this shape, compiled when the first of these comes."""
        shapes = compilation.shapes_of(batch)
        if shapes not in self.steps:
            with self.log.pause():
                self._keep(self.setup.compile_step(batch), batch)
        return self.steps[shapes]

    def _keep(self, step: compilation.Compiled, batch: Any) -> None:
        self.steps[compilation.shapes_of(batch)] = step
        of = ""
        if len(self.steps) > 1:
            of = f" for images of {'x'.join(map(str, batch['image'].shape[1:3]))}"
        flops = step.flops * self.setup.devices.size / self.config.train.batch_size / 1e9
        took = f"{step.seconds:.1f} s, {flops:.3g} GFLOP an image"
        self.console.say(f"Compiled the training step{of} in {took}")

    def _owes_evaluation(self) -> bool:
        every, step = self.plan.evaluate_every, self.step
        due = step > 0 and every and (step % every == 0 or step == self.plan.total)
        return bool(due) and self.progress.evaluated < step

    def _record(self, upto: int) -> None:
        if record := self.log.record(upto, self._state.opt_state):
            self.writers.scalars(upto, "train", record)
            self.console.progress(upto, record)

    def _validate(self, stop: Preemption) -> bool:
        """Evaluates and reacts to the result; False if it was cut short."""
        self._record(self.step)
        variables = self._state.variables(averaged=True)
        with self.log.pause():
            found = self.evaluator(variables, self.data.validation.batches(), stop.asked_here)
            if found is None:
                return False
            result, sums = found
            self.writers.scalars(self.step, "validation", result)
            if self.pictures.wanted:
                self._draw(self.data.validation, "validation", f"pictures/{self.step:07}.png")
            self._report(self.data.validation, result, sums)
        shown = format_metrics(result, tuple(self.task.metrics))
        self.console.say(f"step {self.step}/{self.plan.total}  validation: {shown}")
        self.state = react(self.config, self._state, self.progress, result, self.watched, self.step)
        return True

    def _save(self) -> None:
        self._record(self.step)  # a run that resumes here will not
        self.log.verify()
        self.progress.corrupt = sorted(self.data.train.corrupt)
        self.progress.left_out = dict(self.data.train.left_out)
        meta = {
            "progress": asdict(self.progress),
            "config": configuration.to_json(self.config),
            "facts": self.data.facts.digest(),
            "spec": spec_to_json(self.data.spec),
            "loader": {"batches": self.step, "batch_size": self.config.train.batch_size},
        }
        self.checkpoints.save(self._state, meta, best=self.progress.best_step)

    def _draw(self, loader: Any, split: str, name: str) -> None:
        picture: np.ndarray = self.pictures.draw(self._state.variables(averaged=True), loader)
        self.writers.picture(self.step, split, self.pictures.name, picture)
        path = self.workdir / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path)

    def _report(self, loader: Any, metrics: dict[str, float], sums: Any) -> None:
        variables, step = self._state.variables(averaged=True), int(self._state.step)
        self.reports.evaluated(self.evaluator, loader, variables, metrics, sums, step)

    def _not_finite(self, error: NotFiniteError) -> UserError:
        self.writers.close()
        self.checkpoints.wait()  # one that is still being written counts
        last = self.checkpoints.steps()
        kept = f"step {last[-1]} in {self.checkpoints.folder}" if last else "none"
        return UserError(f"{error} Last good checkpoint: {kept}.")

    def _stopped(self, stop: Preemption) -> bool:
        """False; or, after Ctrl-C, its KeyboardInterrupt."""
        self.writers.close()
        cause = "Ctrl-C" if stop.interrupted else "SIGTERM"
        self.console.say(
            f"Stopped by {cause} after step {self.step} of {self.plan.total}; saved. "
            "Run again to resume."
        )
        if stop.interrupted:
            raise KeyboardInterrupt
        return False

    # -- the end ------------------------------------------------------------------------------

    def test(self) -> dict[str, float]:
        """Metrics of the test split, which is evaluated once; {} if it was cut short."""
        result: dict[str, float] = {}
        skipped = self.data.train.corrupt | self.data.validation.corrupt
        left_out = self.data.train.left_out | self.data.validation.left_out
        if self.config.data.test:
            self._choose_best()
            loader = self._test_loader()
            with Preemption() as stop:
                variables = self._state.variables(averaged=True)
                found = self.evaluator(variables, loader.batches(), stop.asked_here)
            if found is None:
                self._stopped(stop)
                return {}
            result, sums = found
            self.writers.scalars(int(self._state.step), "test", result)
            shown = format_metrics(result, tuple(self.task.metrics), everything=True)
            self.console.say(f"test, step {int(self._state.step)}: {shown}")
            if self.pictures.wanted:
                self._draw(loader, "test", f"{self.pictures.name}.png")
            self._report(loader, result, sums)
            skipped |= loader.corrupt
            left_out |= loader.left_out
        where = " on this process" if jax.process_count() > 1 else ""
        if skipped:
            names = "\n  ".join(sorted(skipped)[:20])
            self.console.say(f"Skipped {len(skipped)} unreadable images{where}:\n  {names}")
        if left_out:
            limit = self.config.data.max_instances
            self.console.say(notices.of_left_out(left_out, limit, where))
        self.writers.close()
        self.console.say(f"Results in {self.workdir}")
        return result

    def _choose_best(self) -> None:
        """Goes back to the best checkpoint, where validation may choose one."""
        best = self.progress.best_step
        if best in (-1, self.step) or not chooses(self.config):
            return
        if best in self.checkpoints.steps():
            restored = self.checkpoints.restore(self.setup.state, best)
            assert restored is not None  # a given step is restored or refused
            self.state = restored[0]
            self.console.say(f"Testing the best checkpoint, of step {best}")

    def _test_loader(self) -> Any:
        data = self.config.data
        if data.test == (data.validation or data.test):
            return self.data.validation
        facts = self.data.facts
        named = folder.with_classes(self.config, facts)
        return beginning.open_loader(named, data.test, self.setup.devices, train=False, facts=facts)
