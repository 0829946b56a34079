"""Reports of trained networks: of one run, evaluated anew, and of several beside each other."""

from collections.abc import Sequence
from pathlib import Path

from jaxvision import tasks
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.report import Figure, render, utf8
from jaxvision.runs.evaluating import evaluation_of
from jaxvision.runs.run import Run
from jaxvision.train import report, reports
from jaxvision.train import workdir as stored
from jaxvision.train.pictures import Pictures
from jaxvision.train.writers import write_atomically

_BATCHES = 4  # of `eval.pictures` images each, of which predictions are shown


def write(run: Run, path: Path, split: str = "") -> None:
    """Evaluates a run and writes its report.

    Args:
      run: the trained network, opened from its folder.
      path: of the file.
      split: `data.test` by default.

    Raises:
      UserError: data, weights or configuration are wrong.
    """
    folder = run.folder
    assert folder is not None  # it was opened from there
    found = evaluation_of(run, split)
    run, loader = found.run, found.loader
    training = open_stream(
        stored.with_classes(run.config, run.facts).data,
        run.config.data.train,
        seed=run.config.seed,
        train=True,
        annotations=tasks.annotations(run.config.task),
        unused=tasks.TASKS[run.config.task].task().unused_by(run.config),
        vocabulary=run.facts.vocabulary,
        palette=run.facts.palette,
    )
    subject = reports.Subject(
        folder,
        run.config,
        run.facts,
        run.task,
        (training, loader.stream),
        run.image_shape,
        found.variables,
    )
    about = reports.evaluated(found.evaluator, loader, found.metrics, found.sums, run.step)
    drawing = Pictures(run.config, run.task)
    figures: list[Figure] = []
    if drawing.wanted:
        name, count = run.config.task, drawing.count
        worst = reports.worst(name, run.task, about, _BATCHES * count)
        for start in range(0, len(worst), count):
            part = worst[start : start + count]
            shown = [mistake.row for mistake in part]
            batch = about.read(shown + shown[-1:] * (count - len(shown)))
            outputs = drawing.predict(found.variables, batch)
            figures += reports.predictions(name, run.task, batch, outputs, part)
    lead = f"Evaluated on {about.split} at step {run.step:,}."
    subject.write(path, about, figures, lead)


def write_files_only(folder: Path, path: Path) -> None:
    """Writes the report of a run from what lies in its folder, without data and network.

    Raises:
      UserError: there is no run.
    """
    config = stored.stored_config(folder)
    facts = stored.stored_facts(folder, config)
    lead = "From the files of the run alone."
    write_atomically(path, utf8(render(report.page_of(folder, config, facts, lead=lead))))


def compare(folders: Sequence[Path], path: Path) -> None:
    """Writes a page of several runs beside each other, from their configurations and metrics.

    Raises:
      UserError: there is no run in one of the folders, or two are the same.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("A run is named twice.")
    short = len({folder.name for folder in folders}) == len(folders)
    runs = {
        folder.name if short else str(folder): (
            stored.stored_config(folder),
            report.stored_records(folder),
        )
        for folder in folders
    }
    write_atomically(path, utf8(render(report.compared(runs))))
