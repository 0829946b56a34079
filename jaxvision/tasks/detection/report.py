"""What detection shows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxvision.metrics import detection_errors
from jaxvision.metrics.detection import Found, Truth, confusion, rank, voc_average_precision
from jaxvision.report import Part, Section, Table, Text, charts
from jaxvision.tasks import confusions, pictures
from jaxvision.tasks.detection.task import on_photograph, on_photographs
from jaxvision.tasks.evaluated import Evaluated, Mistake
from jaxvision.tasks.shown import Item, Objects, Shown


def picture(task: Any, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
    """Pairs of images: the true boxes (if known) on the left, those found on the right.

    Args:
      task: a `Detection`.
      batch: host arrays, with the annotation `instances` if it is known.
      outputs: of `task.predict`.

    Returns:
      uint8 [h, w, 3].
    """

    def found(image: np.ndarray, row: pictures.Row) -> np.ndarray:
        return _drawn(task, image, *_shown(row, sure(task, row)))

    def true(image: np.ndarray, row: pictures.Row) -> np.ndarray:
        kept = row["box_valid"]
        return _drawn(task, image, row["boxes"][kept], row["box_label"][kept], None)

    return pictures.pairs(batch, outputs, found, true, ("boxes",))


def sure(task: Any, found: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which objects of one image are shown: those from the threshold on."""
    return found["valid"] & (found["scores"] >= task.threshold)


def _shown(found: Mapping[str, np.ndarray], kept: np.ndarray) -> tuple[np.ndarray, ...]:
    """(boxes, labels, scores) of the objects that are kept."""
    return found["boxes"][kept].astype(np.float32), found["labels"][kept], found["scores"][kept]


def _drawn(
    task: Any, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray | None
) -> np.ndarray:
    texts = [task.class_names[label] for label in labels]
    if scores is not None:
        texts = [f"{text} {score:.2f}" for text, score in zip(texts, scores)]
    return pictures.labelled(image, boxes, texts, labels)


def shown_on_photograph(task: Any, prediction: Any) -> tuple[np.ndarray, ...]:
    """(boxes, labels, scores) from the threshold on, in pixels of the photograph."""
    boxes, labels, scores = _shown(prediction.outputs, sure(task, prediction.outputs))
    return on_photograph(prediction.geometry, boxes, task.clip), labels, scores


def summary(task: Any, prediction: Any, top: int = 5) -> dict[str, Any]:
    """JSON-able: `boxes` (x0, y0, x1, y1), `scores`, `classes`, from the highest score on."""
    boxes, labels, scores = shown_on_photograph(task, prediction)
    return {
        "boxes": [[round(float(side), 2) for side in box] for box in boxes],
        "scores": [round(float(score), 6) for score in scores],
        "classes": [task.class_names[label] for label in labels],
    }


def cell(task: Any, prediction: Any, top: int = 5) -> str:
    """One line for the table of `predict`: how many of which class."""
    counts = Counter(summary(task, prediction)["classes"])
    most = counts.most_common(top)
    text = ", ".join(f"{count} {name}" for name, count in most) or "nothing"
    return text + (f", {len(counts) - len(most)} more classes" if len(counts) > len(most) else "")


_LEAST, _MOST = 0.05, 100  # score of an object that can be shown, and how many can


def could_be_shown(task: Any, prediction: Any) -> tuple[Any, Any]:
    """(task, prediction) with a threshold, and objects, as low as a person may ask for."""
    low = replace(task, threshold=min(task.threshold, _LEAST))
    kept = sure(low, prediction.outputs)
    kept &= np.cumsum(kept) <= _MOST  # the surest come first
    return low, replace(prediction, outputs={**prediction.outputs, "valid": kept})


def shown(task: Any, prediction: Any) -> list[Shown]:
    """The objects, also those below the threshold; see `jaxvision.tasks.shown`."""
    boxes, labels, scores = shown_on_photograph(*could_be_shown(task, prediction))
    items = [
        Item(task.class_names[label], pictures.class_colour(int(label)), float(score), box)
        for box, label, score in zip(boxes, labels, scores)
    ]
    return [Objects(items, task.threshold)]


# The ends of the names of what `write` writes for each image.
ENDINGS = (".png",)


def write(task: Any, prediction: Any, folder: Path, stem: str) -> None:
    """The photograph with the objects found, as `stem.png`."""
    drawn = _drawn(task, prediction.image, *shown_on_photograph(task, prediction))
    Image.fromarray(drawn).save(folder / f"{stem}.png")


def figures(task: Any, rows: Mapping[str, np.ndarray], folder: Path) -> None:
    """Precision over recall of each class, and which class is found for which, as pictures.

    Args:
      task: a `Detection`.
      rows: of an evaluation.
      folder: gets `precision_recall.png` and `confusion.png`; the latter is of objects that are
        found with `task.threshold`, at an overlap of one half.
    """
    found, truth = on_photographs(rows, task.clip)
    ranked = {name: rank(found, truth, k) for k, name in enumerate(task.class_names)}
    _curves(ranked, folder / "precision_recall.png")
    matrix = confusion(found, truth, len(task.class_names), task.threshold)
    _matrix(matrix, (*task.class_names, "nothing"), folder / "confusion.png")


_NAMED = 20  # of more curves or classes, names would hide what they name


def _axes(width: float, height: float) -> tuple[Any, Any]:
    # Without pyplot there is no window and no figure that stays in memory.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _curves(ranked: Mapping[str, Any], path: Path) -> None:
    figure, axes = _axes(7, 5)
    for index, (name, one) in enumerate(ranked.items()):
        if one.objects:
            colour = np.array(pictures.class_colour(index)) / 255
            label = f"{name} ({one.objects})" if len(ranked) <= _NAMED else None
            axes.plot(one.recall, one.precision, color=colour, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.set_title("Found at an overlap of 0.5")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", fontsize=8)
    figure.savefig(path, dpi=120)


def _matrix(matrix: np.ndarray, names: Any, path: Path) -> None:
    side = min(12.0, 3 + 0.45 * len(names))
    figure, axes = _axes(side + 1, side)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="found", ylabel="true")
    if len(names) <= _NAMED + 1:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                ink = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, count, ha="center", va="center", color=ink, fontsize=8)
    figure.colorbar(image, label="share of the true class")
    figure.savefig(path, dpi=120)


def files(task: Any, facts: Any, summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Further files of a prediction: `coco.json`, a list of results as COCO's evaluation reads it.

    `image_id` is the file's name without suffix, a number where it is one, as in COCO's own files.
    Categories have the ids of the training data, or count from 1.

    Args:
      task: a `Detection`.
      facts: of the run's data.
      summaries: of each image, see `summary`, and its `file`.

    Returns:
      JSON-able content by name.
    """
    category, results = categories(task, facts), []
    for one in summaries:
        for (x0, y0, x1, y1), score, name in zip(one["boxes"], one["scores"], one["classes"]):
            results.append(
                {
                    "image_id": image_id(one["file"]),
                    "category_id": category[name],
                    "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
                    "score": score,
                }
            )
    return {"coco.json": results}


def categories(task: Any, facts: Any) -> dict[str, int]:
    """The id of each class in COCO's files; see `files`."""
    ids = facts.category_ids or range(1, len(task.class_names) + 1)
    return dict(zip(task.class_names, ids))


def image_id(file: str) -> int | str:
    """What COCO's files call an image; see `files`."""
    stem = Path(file).stem
    return int(stem) if stem.isdecimal() else stem


_CURVES = 16  # classes of which precision over recall is shown


def annotated(task: Any, row: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """(an augmented training image with its boxes, how many of which class)."""
    kept = row["box_valid"]
    labels = row["box_label"][kept]
    counts = Counter(task.class_names[label] for label in labels)
    text = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
    return _drawn(task, row["image"], row["boxes"][kept], labels, None), text


def sections(task: Any, found: Evaluated) -> list[Section]:
    """Classes with their curves, sizes, which is found for which, and the kinds of mistakes."""
    seen, there = on_photographs(found.rows, task.clip)
    names = task.class_names
    matrix = confusion(seen, there, len(names), task.threshold)
    parts: list[Part] = [*_of_classes(task, seen, there, found.metrics), *_of_sizes(found, there)]
    parts.append(confusions.matrix(matrix, (*names, "nothing")))
    parts.append(
        Text(
            f"Precision, recall and the matrix are of objects found with {task.threshold:g} and "
            "more at an overlap of 0.5; the column of nothing is what was missed."
        )
    )
    return [Section("Objects", parts), Section("Kinds of mistakes", _kinds(seen, there, names))]


def _of_classes(task: Any, seen: Found, there: Truth, metrics: Mapping[str, float]) -> list[Part]:
    lines: list[list[Any]] = []
    curves = {}
    for k, name in enumerate(task.class_names):
        ranked = rank(seen, there, k)
        sure_ones = int((ranked.score >= task.threshold).sum())
        right = int(ranked.right[:sure_ones].sum())
        precision = right / sure_ones if sure_ones else None
        recall = right / ranked.objects if ranked.objects else None
        ap50 = voc_average_precision(ranked)
        line = [name, ranked.objects, metrics.get(f"ap/{name}"), ap50, precision, recall]
        lines.append(line)
        curves[name] = ranked
    lines.sort(key=lambda line: (np.isnan(line[3]), line[3]))
    columns = ("class", "objects", "AP", "AP50", "precision", "recall")
    common = sorted(curves, key=lambda name: -curves[name].objects)[:_CURVES]
    series = {}
    for name in common:
        one = curves[name]
        if len(one.score) and one.objects:
            points = list(zip(one.recall.tolist(), one.precision.tolist()))
            series[name] = charts.thinned(points, 200)
    parts: list[Part] = [Table(columns, lines, "Each class, the worst first")]
    if series:
        title = "Precision over recall, at an overlap of 0.5"
        parts.append(charts.curves(title, series, x="recall", y="precision", unit=True))
    return parts


def _of_sizes(found: Evaluated, there: Truth) -> list[Part]:
    """Metrics of small, medium and large objects, as COCO parts them."""
    sizes = ("small", "medium", "large")
    heads = [name[: -len("_small")] for name in found.metrics if name.endswith("_small")]
    edges = (0, 32**2, 96**2, np.inf)
    lines: list[list[Any]] = []
    for size, low, high in zip(sizes, edges, edges[1:]):
        within = (there.area >= low) & (there.area < high) & ~there.crowd
        values = [found.metrics.get(f"{head}_{size}") for head in heads]
        lines.append([size, int(within.sum()), *values])
    columns = ("size", "objects", *heads)
    text = "By size: below 32 x 32 pixels, below 96 x 96, and above"
    return [Table(columns, lines, text)] if heads else []


def _kinds(seen: Found, there: Truth, names: Sequence[str]) -> list[Part]:
    """TIDE's kinds of mistakes, with what each costs."""
    costs = detection_errors.costs(seen, there, len(names))
    counts = detection_errors.counts(detection_errors.errors(seen, there))
    lines: list[list[Any]] = [[kind, counts[kind], costs[kind]] for kind in detection_errors.KINDS]
    columns = ("kind", "mistakes", "cost in AP50")
    text = (
        "TIDE (Bolya et al. 2020): the average precision at an overlap of 0.5, now "
        f"{costs['ap50']:.4f}, that would be gained if all mistakes of one kind were put right."
    )
    each = {kind: costs[kind] for kind in detection_errors.KINDS}
    chart = charts.bars("Cost of mistakes", each, value="AP50 lost")
    return [Text(text), chart, Table(columns, lines, "Kinds of mistakes")]


def mistakes(task: Any, found: Evaluated, most: int) -> list[Mistake]:
    """The images with most that is missed or wrongly found, for what is there."""
    seen, there = on_photographs(found.rows, task.clip)
    kept = seen.score >= task.threshold
    seen = Found(*(part[kept] for part in seen))
    what = detection_errors.errors(seen, there)
    count = len(found.rows["geometry"])
    wrong = np.bincount(seen.image[~np.isin(what.kind, ("right", "ignored"))], minlength=count)
    missed = np.bincount(there.image[~what.matched & ~there.crowd], minlength=count)
    right = np.bincount(seen.image[what.kind == "right"], minlength=count)
    faults = wrong + missed
    f1 = 2 * right / np.maximum(2 * right + faults, 1)
    order = np.lexsort((-faults, np.where(faults > 0, f1, 1)))[:most]
    return [_mistake(task, found, seen, there, int(row), wrong, missed) for row in order]


def _mistake(
    task: Any, found: Evaluated, seen: Found, there: Truth, row: int, wrong: Any, missed: Any
) -> Mistake:
    labels = np.union1d(seen.label[seen.image == row], there.label[there.image == row])
    text = f"{found.name(row)}: {wrong[row]} wrong, {missed[row]} missed"
    tags = tuple(task.class_names[int(k)] for k in labels)
    return Mistake(row, text, tags, wrong=bool(wrong[row] + missed[row]))
