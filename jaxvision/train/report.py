"""The sections of a run's report that every task has, from what lies in its folder."""

import fnmatch
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from jaxvision import plugins, tasks
from jaxvision.config import FREE
from jaxvision.data.facts import Facts
from jaxvision.inspect.cells import COLUMNS, cells
from jaxvision.inspect.table import layers, totals
from jaxvision.report import Chart, Figure, Gallery, Page, Part, Section, Table, Text, charts
from jaxvision.tasks import configuration
from jaxvision.tasks.base import Metric, metric_of
from jaxvision.train.writers import read_metrics

NAME = "report.html"

Records = Sequence[Mapping[str, Any]]

_PICTURES = 12  # of all that were drawn over the training
_CURVES = 16  # of a family; of more classes than these a table says more
_NO_METRICS = ("step", "split")
_LAST = ("gradient_norm*", "learning_rate*", "images_per_second", "*memory*")


def page_of(
    folder: Path,
    config: ConfigDict,
    facts: Facts,
    shown: Sequence[Section] = (),
    about: Sequence[Section] = (),
    lead: str = "",
    step: int | None = None,
) -> Page:
    """The report of a run.

    Args:
      folder: of the run.
      config: its configuration.
      facts: of its data.
      shown: what the task shows of an evaluation.
      about: data, network and machine; by default what the facts say of the data.
      lead: a line below the title.
      step: that the report is of; None of the last one.
    """
    records = stored_records(folder)
    last = max((record["step"] for record in records), default=0)
    text = f"{config.task}, {config.model.name}, {last:,} steps. {lead}"
    return Page(
        title=folder.name,
        lead=text.strip(),
        figures=headline(config, records),
        sections=[
            results(config, records),
            progress(config, records),
            *shown,
            drawn(folder, step),
            *(about or [data(facts)]),
            settings(config),
        ],
    )


def stored_records(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics; none before the first."""
    path = folder / "metrics.jsonl"
    return read_metrics(path) if path.is_file() else []


def of_split(records: Records, split: str) -> list[Mapping[str, Any]]:
    """The records of "train", "validation" or "test"."""
    return [record for record in records if record["split"] == split]


def best_of(config: ConfigDict, records: Records) -> tuple[str, int | None]:
    """(the metric that names the best checkpoint, the step of its best value in validation)."""
    kind = tasks.TASKS[config.task].task()
    name = config.checkpoint.best_metric or kind.main_metric
    metric: Metric | None = metric_of(kind, name)
    known = [
        (record[name], record["step"])
        for record in of_split(records, "validation")
        if record.get(name) is not None
    ]
    if metric is None or not known:
        return name, None
    sign = -1 if metric.better == "higher" else 1
    return name, min(known, key=lambda found: (sign * found[0], found[1]))[1]


def headline(config: ConfigDict, records: Records) -> list[tuple[str, str]]:
    """The numbers that matter most: those of the test if there was one, else of the best step."""
    name, best = best_of(config, records)
    tested = of_split(records, "test")
    found, where = (tested[-1], "test") if tested else (None, "validation")
    if found is None:
        found = next((r for r in of_split(records, where) if r["step"] == best), None)
    if found is None:
        return []
    names = [name, *(n for n in _ordered(config, found) if n != name and "/" not in n)]
    shown = [(n, found[n]) for n in names if found.get(n) is not None]
    return [(f"{where} {n}", f"{value:.4g}") for n, value in shown[:4]]


def _ordered(config: ConfigDict, names: Any) -> list[str]:
    """Names of metrics: as the task declares them, then the others, what is of the loop last."""
    declared = list(tasks.TASKS[config.task].task().metrics)

    def place(name: str) -> tuple[int, int]:
        for rank, pattern in enumerate(_LAST):
            if fnmatch.fnmatch(name, pattern):
                return 2, rank
        for rank, pattern in enumerate(declared):
            if fnmatch.fnmatch(name, pattern):
                return 0, rank
        return 1, 0

    return sorted((name for name in names if name not in _NO_METRICS), key=place)


def results(config: ConfigDict, records: Records) -> Section:
    """Every metric in validation and in the test."""
    watched, best = best_of(config, records)
    validated, tested = of_split(records, "validation"), of_split(records, "test")
    chosen = next((r for r in validated if r["step"] == best), None)
    given = {
        "validation, best": chosen,
        "validation, last": validated[-1] if validated else None,
        "test": tested[-1] if tested else None,
    }
    columns = {name: record for name, record in given.items() if record is not None}
    if not columns:
        return Section("Results", [Text("Nothing has been evaluated yet.")])
    kind = tasks.TASKS[config.task].task()
    names = _ordered(config, dict.fromkeys(n for record in columns.values() for n in record))
    parts: list[Part] = []
    for per_class in (False, True):
        rows: list[list[Any]] = []
        for name in names:
            if ("/" in name) == per_class:
                metric = metric_of(kind, name)
                better = "" if metric is None else metric.better
                rows.append([name, better, *(r.get(name) for r in columns.values())])
        if rows:
            caption = "Metrics of each class" if per_class else "Metrics"
            if chosen is not None:
                caption += f"; best is step {best:,}, by {watched}"
            parts.append(Table(("metric", "better", *columns), rows, caption, folded=per_class))
    return Section("Results", parts)


def families(config: ConfigDict, records: Records) -> dict[str, dict[str, list[tuple[Any, Any]]]]:
    """Curves by family of metrics: `loss` of training and validation, `iou/...` of all classes.

    Returns:
      By the family's name, by the curve's name: (step, value) of each record.
    """
    found: dict[str, dict[str, list[tuple[Any, Any]]]] = {}
    names = _ordered(config, dict.fromkeys(name for record in records for name in record))
    for name in names:
        head, slash, tail = name.partition("/")
        for split in ("train", "validation"):
            points = [
                (record["step"], record[name])
                for record in of_split(records, split)
                if record.get(name) is not None
            ]
            if points:
                curve = tail if slash else split
                if slash and split == "train" and not fnmatch.fnmatch(name, "learning_rate*"):
                    curve = f"{tail} (train)"
                found.setdefault(f"{head} of each" if slash else head, {})[curve] = points
    return found


def progress(config: ConfigDict, records: Records) -> Section:
    """A chart of each family of metrics over the steps, the best step marked."""
    watched, best = best_of(config, records)
    parts: list[Part] = []
    for family, series in families(config, records).items():
        if len(series) <= _CURVES:
            marking = f"best {watched}"
            title = family.replace("_", " ")
            parts.append(charts.curves(title, series, marked=best, marking=marking))
    if best is not None and parts:
        line = f"The broken line marks step {best:,}, the best by {watched} in validation."
        parts.insert(0, Text(line))
    return Section("Curves", parts)


def drawn(folder: Path, step: int | None = None) -> Section:
    """Pictures that the run drew at its evaluations, the newest first.

    Args:
      folder: of the run.
      step: later ones are left out, for a run under way may be writing them.
    """
    files = sorted((folder / "pictures").glob("*.png"))
    steps = {path: int(path.stem) for path in files if path.stem.isdecimal()}
    files = [path for path, at in steps.items() if step is None or at <= step]
    figures = []
    for path in reversed(list(charts.thinned(files, _PICTURES))):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        text = f"step {steps[path]:,}"
        figures.append(Figure(pixels, text, f"What the network gave at an evaluation, {text}"))
    parts = [Gallery(figures, "Drawn at evaluations, the newest first")] if figures else []
    return Section("Over the training", parts)


def data(
    facts: Facts,
    counts: Mapping[str, np.ndarray | None] | None = None,
    augmented: Sequence[Figure] = (),
) -> Section:
    """What the run knows of its data.

    Args:
      facts: of the training data.
      counts: records of each class, by split; None where records would have to be read for it.
      augmented: annotated images of the training, as the network sees them.
    """
    counted = {split: n for split, n in (counts or {}).items() if n is not None}
    rows: list[list[Any]] = [[split, count] for split, count in facts.records.items()]
    parts: list[Part] = [Table(("split", "records"), rows, "Records")] if rows else []
    names = facts.class_names
    if counted:
        each: list[list[Any]] = [
            [name, *(int(n[k]) for n in counted.values())] for k, name in enumerate(names)
        ]
        parts.append(Table(("class", *counted), each, "Records of each class"))
    elif names:
        parts.append(Text(f"{len(names)} classes: {', '.join(names[:200])}"))
    if facts.keypoint_names:
        parts.append(Text(f"Key points: {', '.join(facts.keypoint_names)}"))
    if augmented:
        parts.append(Gallery(augmented, "Training images as the network sees them, augmented"))
    return Section("Data", parts)


def model(network: Any, name: str, image_shape: Sequence[int], variables: Any = None) -> Section:
    """The layers of a network that is called with an image, and their sums.

    Args:
      network: a module; of one that takes more than an image only parameters are counted.
      name: in the registry.
      image_shape: [h, w, c]; () where the network sees no whole images.
      variables: of the task, as shapes or arrays, of which parameters are counted.
    """
    import jax

    from jaxvision import models

    parts: list[Part] = []
    if image_shape and models.variant(name).inputs == ("image",):
        lines = layers(network, image_shape)
        rows = [cells(line) for line in [*lines, totals(lines)]]
        title = f"{name}, one image of {'x'.join(map(str, image_shape))}"
        sums = totals(lines)
        parts.append(
            Text(
                f"{name}: {sums.parameters:,} parameters, {sums.multiply_adds:,} multiply-adds for "
                f"an image of {'x'.join(map(str, image_shape))}."
            )
        )
        parts.append(Table(COLUMNS, rows, title, folded=True))
    elif variables is not None:
        own: list[list[Any]] = []
        for part, tree in variables.get("params", {}).items():
            own.append([part, sum(leaf.size for leaf in jax.tree.leaves(tree))])
        total = sum(row[1] for row in own)
        parts.append(Text(f"{name}: {total:,} parameters."))
        parts.append(Table(("part", "parameters"), own, f"Parts of {name}", folded=len(own) > 12))
    return Section("Model", parts)


def settings(config: ConfigDict) -> Section:
    """The configuration: what differs from the task's defaults, and below it everything."""
    keys = tasks.schema(config.task).keys
    values, usual = (configuration.flatten(c) for c in (config, tasks.default_config(config.task)))
    rows, changed = [], []
    for path, value in values.items():
        text, default = shown_value(value), shown_value(usual[path])
        meaning = keys[path].meaning
        rows.append([path, text, meaning])
        if text != default:
            changed.append([path, text, default, meaning])
    parts: list[Part] = [
        Table(("key", "value", "default", "meaning"), changed, "What differs from the default"),
        Table(("key", "value", "meaning"), rows, "All keys", folded=True),
    ]
    return Section("Configuration", parts)


def shown_value(value: Any) -> str:
    """A value of a configuration, to be read."""
    if value is FREE or value is None:
        return "{}"
    if isinstance(value, ConfigDict):
        value = value.to_dict()

    def other(part: Any) -> Any:
        return plugins.reference(part) if callable(part) else list(part)

    if isinstance(value, str):
        return value or '""'
    return json.dumps(value, default=other, ensure_ascii=False)


def compared(runs: Mapping[str, tuple[ConfigDict, Records]]) -> Page:
    """Several runs beside each other: their last metrics, their curves, how they are configured.

    Args:
      runs: configuration and metrics by name.
    """
    rows, names = [], list(runs)
    metrics: dict[str, None] = {}
    finals: dict[str, Mapping[str, Any]] = {}
    for name, (config, records) in runs.items():
        _, best = best_of(config, records)
        tested = of_split(records, "test")
        chosen = [r for r in of_split(records, "validation") if r["step"] == best]
        finals[name] = (tested or chosen or [{}])[-1]
        metrics |= dict.fromkeys(n for n in _ordered(config, finals[name]) if "/" not in n)
    for name, final in finals.items():
        rows.append([name, final.get("split"), final.get("step"), *(final.get(m) for m in metrics)])
    table = Table(
        ("run", "split", "step", *metrics), rows, "Metrics of the test, or of the best step"
    )
    return Page(
        title="Comparison",
        lead=f"{len(runs)} runs: {', '.join(names)}",
        sections=[
            Section("Results", [table]),
            Section("Curves", _overlaid(runs)),
            Section("Configuration", [_differing(runs)]),
        ],
    )  # fmt: skip


def _overlaid(runs: Mapping[str, tuple[ConfigDict, Records]]) -> list[Chart]:
    """A chart of each metric and split that at least one run has, a curve a run."""
    series: dict[tuple[str, str], dict[str, list[tuple[Any, Any]]]] = {}
    for name, (config, records) in runs.items():
        for family, own in families(config, records).items():
            for split in ("validation", "train"):
                if split in own:
                    series.setdefault((family, split), {})[name] = own[split]
    ordered = sorted(series.items(), key=lambda one: one[0][1] == "train")
    return [
        charts.curves(f"{family.replace('_', ' ')}, {split}", curves, y=family)
        for (family, split), curves in ordered
    ]


def _differing(runs: Mapping[str, tuple[ConfigDict, Records]]) -> Table:
    values = {
        name: {path: shown_value(value) for path, value in configuration.flatten(config).items()}
        for name, (config, _) in runs.items()
    }
    paths = dict.fromkeys(path for own in values.values() for path in own)
    rows = []
    for path in paths:
        row = [own.get(path) for own in values.values()]
        if len(set(row)) > 1:
            rows.append([path, *row])
    return Table(("key", *values), rows, "Keys that differ")
