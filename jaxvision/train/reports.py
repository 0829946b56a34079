"""`report.html` of a run under way: a thread writes it after evaluations and holds nothing up."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision import tasks
from jaxvision.data.facts import Facts
from jaxvision.data.sources.splits import labels_of
from jaxvision.data.stream import Stream
from jaxvision.report import Figure, Gallery, Section, Table, render, utf8
from jaxvision.tasks import pictures
from jaxvision.tasks.base import Task
from jaxvision.tasks.evaluated import Evaluated, Mistake
from jaxvision.train import compilation, report
from jaxvision.train.evaluation import Evaluator
from jaxvision.train.pictures import Pictures
from jaxvision.train.writers import write_atomically

logger = logging.getLogger(__name__)

_REST = 9  # times as long as a report took, no other one is begun
_LEAVING = 5  # s
_AUGMENTED = 16  # images


class Latest:
    """Does the newest of what it is given, in a thread of its own, one after another.

    What has not begun when something newer comes is never done, and after each the thread rests, so
    that it takes no more than a tenth of a processor. An error is a warning, once.

    Args:
      what: is being done, named in the warning.
      rest: how long, in times of what the last one took.
    """

    def __init__(self, what: str, rest: float = _REST):
        self._what, self._rest = what, rest
        self._job: Callable[[], None] | None = None
        self._changed = threading.Condition()
        self._closing = self._warned = False
        self._thread: threading.Thread | None = None

    def give(self, job: Callable[[], None]) -> None:
        """Takes the place of what has not begun."""
        with self._changed:
            self._job = job
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._what, daemon=True)
            self._thread.start()

    def close(self, drop: bool = False) -> None:
        """Waits for the newest to be done, without a rest.

        Args:
          drop: the newest is not begun any more, and what is under way is not waited for long.
        """
        with self._changed:
            self._closing = True
            if drop:
                self._job = None
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_LEAVING if drop else None)
        self._thread, self._closing = None, False

    def warn(self, error: Exception) -> None:
        """Says once that something failed."""
        if not self._warned:
            logger.warning("%s: %s: %s", self._what, type(error).__name__, error)
        self._warned = True

    def _work(self) -> None:
        ready_at = 0.0
        while True:
            with self._changed:
                while not self._closing and (
                    self._job is None or (left := ready_at - time.monotonic()) > 0
                ):
                    self._changed.wait(None if self._job is None else left)
                job, self._job = self._job, None
            if job is None:
                return
            began = time.monotonic()
            try:
                job()
            except Exception as error:
                self.warn(error)
            ended = time.monotonic()
            ready_at = ended + self._rest * (ended - began)


@dataclass(frozen=True)
class Subject:
    """What a report is about: a run with its task and its data.

    Attributes:
      folder: of the run.
      config: its configuration.
      facts: of its data.
      task: the configured task.
      streams: of its splits, the training's first.
      shape: of an image as the network sees it, [h, w, c]; () where it sees none.
      variables: of the task, as shapes.
    """

    folder: Path
    config: ConfigDict
    facts: Facts
    task: Task
    streams: Sequence[Stream]
    shape: tuple[int, ...]
    variables: Mapping[str, Any]

    @cached_property
    def about(self) -> list[Section]:
        """Data and network, which never change."""
        names, counts = self.facts.class_names, {}
        sizes = {stream.spec: stream.order.count for stream in self.streams}
        facts = replace(self.facts, records={**self.facts.records, **sizes})
        for stream in self.streams:
            labels = labels_of(stream.source)
            if labels is not None and names:
                counts[stream.spec] = np.bincount(labels, minlength=len(names))
        augmented = augmented_images(self.task, self.config, self.streams[0])
        network, name = self.task.model, self.config.model.name
        return [
            report.data(facts, counts, augmented),
            report.model(network, name, self.shape, self.variables),
        ]

    def write(
        self, path: Path, found: Evaluated, mistakes: Sequence[Figure] = (), lead: str = ""
    ) -> None:
        """Writes the report of an evaluation.

        Args:
          path: of the file.
          found: the evaluation.
          mistakes: the worst predictions of it.
          lead: a line below the title.
        """
        module = tasks.report(self.config.task)
        shown: list[Section] = []
        if hasattr(module, "sections"):
            shown += module.sections(self.task, found)
        if mistakes:
            by = "class" if any(figure.tags for figure in mistakes) else ""
            gallery = Gallery(mistakes, f"Of {found.split}, the worst first", by)
            shown.append(Section("Predictions", [gallery]))
        about = [*self.about, machine()]
        page = report.page_of(self.folder, self.config, self.facts, shown, about, lead, found.step)
        write_atomically(path, utf8(render(page)))


def evaluated(
    evaluator: Evaluator, loader: Any, metrics: Mapping[str, float], sums: Any, step: int
) -> Evaluated:
    """The evaluation that has just been made of a split."""
    rows, records = evaluator.rows, evaluator.records
    plain = replace(loader.stream, order=replace(loader.stream.order, grouping=None))

    def index(row: int) -> int:
        assert records is not None  # there are rows
        return int(records[row])

    def read(chosen: Sequence[int]) -> Mapping[str, np.ndarray]:
        return plain.batch([index(row) for row in chosen])

    def name(row: int) -> str:
        return Path(plain.source.name(index(row))).name

    return Evaluated(plain.spec, step, metrics, sums, rows, read, name)


def worst(task_name: str, task: Task, found: Evaluated, most: int) -> list[Mistake]:
    """The rows of an evaluation on which the task's report says that predictions are worst."""
    module = tasks.report(task_name)
    if most < 1 or not found.rows or not hasattr(module, "mistakes"):
        return []
    return list(module.mistakes(task, found, most))


def predictions(
    task_name: str, task: Task, batch: Any, outputs: Any, mistakes: Sequence[Mistake]
) -> list[Figure]:
    """A picture of each prediction, as the task's report draws it.

    Args:
      task_name: in the registry.
      task: the configured one.
      batch, outputs: host arrays [b, ...], a row for each mistake.
      mistakes: see `worst`.
    """
    module, figures = tasks.report(task_name), []
    for place, mistake in enumerate(mistakes):
        one, given = (
            jax.tree.map(lambda leaf, i=place: np.asarray(leaf)[i : i + 1], dict(tree))
            for tree in (batch, outputs)
        )
        image = module.picture(task, one, given)
        figures.append(Figure(image, mistake.caption, tags=mistake.tags, wrong=mistake.wrong))
    return figures


def augmented_images(task: Task, config: ConfigDict, training: Stream) -> list[Figure]:
    """The first training images with their annotations, augmented; none of volumes and of views."""
    batch = training.batch(list(range(min(_AUGMENTED, training.order.count))))
    if "image" not in batch or batch["image"].ndim != 4:
        return []
    inputs = task.inputs

    def augment(batch: Any, key: jax.Array) -> Any:
        batch = inputs.train(batch, key)
        pixels = inputs.pixels(batch["image"]).clip(0, 1)
        return {**batch, "image": (255 * pixels + 0.5).astype(np.uint8)}

    arrays = {key: value for key, value in batch.items() if value.dtype.kind in "biuf"}
    key = jax.random.key(config.seed)
    options = compilation.compiler_options()
    made = jax.device_get(jax.jit(augment, compiler_options=options)(arrays, key))
    annotated = getattr(tasks.report(config.task), "annotated", None)
    figures = []
    for place in range(len(made["image"])):
        row = {name: value[place] for name, value in made.items()}
        image, text = row["image"], ""
        if annotated is not None:
            image, text = annotated(task, row)
        figures.append(Figure(pictures.as_colour(image), text, text or "A training image"))
    return figures


def machine() -> Section:
    """What the run is computed with, and the most memory that it took so far."""
    import resource
    import sys

    devices = jax.local_devices()
    rows: list[list[Any]] = [
        ["devices", f"{jax.device_count()} x {devices[0].device_kind}"],
        ["processes", jax.process_count()],
        ["JAX", jax.__version__],
    ]
    unit = 1 if sys.platform == "darwin" else 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    rows.append(["memory of the process, at most", f"{most / 2**30:.2f} GiB"])
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in devices]
    if max(peaks):
        rows.append(["memory of a device, at most", f"{max(peaks) / 2**30:.2f} GiB"])
    return Section(
        "Machine", [Table(("property", "value"), [[a, str(b)] for a, b in rows], "This machine")]
    )


class Reports:
    """Writes `report.html` while a run goes on.

    Args:
      subject: the run.
      drawing: predicts what is shown of an evaluation.
      total: steps of the training.
      active: False makes every call a no-op.
    """

    def __init__(self, subject: Subject, drawing: Pictures, total: int, active: bool = True):
        self._subject, self._drawing, self._total = subject, drawing, total
        self._active = active
        self._latest = Latest("The report was not written")

    def evaluated(
        self,
        evaluator: Evaluator,
        loader: Any,
        variables: Any,
        metrics: Mapping[str, float],
        sums: Any,
        step: int,
    ) -> None:
        """Has a report of an evaluation written; the worst images are predicted here and now."""
        if not self._active:
            return
        try:
            found = evaluated(evaluator, loader, metrics, sums, step)
            job = self._job(found, variables)
        except Exception as error:
            self._latest.warn(error)
        else:
            self._latest.give(job)

    def _job(self, found: Evaluated, variables: Any) -> Callable[[], None]:
        subject, mistakes = self._subject, []
        name, task = subject.config.task, subject.task
        batch = outputs = None
        if self._drawing.wanted:
            mistakes = worst(name, task, found, self._drawing.count)
        if mistakes:
            shown = [mistake.row for mistake in mistakes]
            # As many as the run's other pictures show, for which the program is there.
            batch = found.read(shown + shown[-1:] * (self._drawing.count - len(shown)))
            outputs = self._drawing.predict(variables, batch)

        def write() -> None:
            figures = predictions(name, task, batch, outputs, mistakes)
            lead = f"Evaluated on {found.split} at step {found.step:,} of {self._total:,}."
            subject.write(subject.folder / report.NAME, found, figures, lead)

        return write

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, *raised: object) -> None:
        """Waits for the newest report, but not where something went wrong."""
        self._latest.close(drop=kind is not None)
