"""What pose shows: left limbs orange, right ones blue, those of the middle green."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxvision.metrics.pose import hits
from jaxvision.report import Section, Table, charts
from jaxvision.tasks import pictures, skeletons
from jaxvision.tasks.evaluated import Evaluated, Mistake
from jaxvision.tasks.pose.task import moved
from jaxvision.tasks.shown import Item, Objects, Shown


def picture(task: Any, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
    """Pairs of images: the true key points (if known) on the left, those found on the right.

    Args:
      task: a `Pose`.
      batch: host arrays, with the annotation `instances` if it is known.
      outputs: of `task.predict`.

    Returns:
      uint8 [h, w, 3].
    """

    def found(image: np.ndarray, row: pictures.Row) -> np.ndarray:
        return _drawn(task, image, row["keypoints"], least=192)

    def true(image: np.ndarray, row: pictures.Row) -> np.ndarray:
        truth = row["keypoints"][int(np.argmax(row["box_valid"]))]
        shown = (truth[:, 2] > 0) & bool(row["box_valid"].any())
        return _drawn(task, image, truth, shown, least=192)

    return pictures.pairs(batch, outputs, found, true, ("keypoints",))


def _drawn(
    task: Any, image: np.ndarray, points: np.ndarray, shown: Any = None, least: int = 320
) -> np.ndarray:
    """An image with key points (x, y, score); those from the threshold on, unless it is said."""
    shown = points[:, 2] >= task.threshold if shown is None else shown
    return skeletons.drawn(
        image, points[:, :2], shown, task.skeleton, task.keypoint_pairs, least=least
    )


def on_photograph(prediction: Any) -> np.ndarray:
    """Key points [k, 3] in pixels of the photograph, and their scores."""
    points = prediction.outputs["keypoints"].astype(np.float32)
    return moved(points[None], [prediction.geometry.inverse])[0]


def summary(task: Any, prediction: Any, top: int = 5) -> dict[str, Any]:
    """JSON-able: `keypoints`, by name [x, y, score]."""
    points = on_photograph(prediction)
    return {
        "keypoints": {
            name: [round(float(x), 2), round(float(y), 2), round(float(score), 6)]
            for name, (x, y, score) in zip(task.keypoint_names, points)
        }
    }


def cell(task: Any, prediction: Any, top: int = 5) -> str:
    """One line for the table of `predict`: how many key points, and how sure they are."""
    scores = on_photograph(prediction)[:, 2]
    sure = scores >= task.threshold
    text = f"{sure.sum()} of {len(scores)} key points"
    return f"{text}, mean score {scores[sure].mean():.2f}" if sure.any() else text


# The ends of the names of what `write` writes for each image.
ENDINGS = (".png",)


def write(task: Any, prediction: Any, folder: Path, stem: str) -> None:
    """The photograph with the key points found and the limbs between them, as `stem.png`."""
    shown = _drawn(task, prediction.image, on_photograph(prediction))
    Image.fromarray(shown).save(folder / f"{stem}.png")


def shown(task: Any, prediction: Any) -> list[Shown]:
    """The key points, also those below the threshold; see `jaxvision.tasks.shown`."""
    names, pairs = task.keypoint_names, task.keypoint_pairs
    item = Item("pose", skeletons.MIDDLE, points=on_photograph(prediction))
    limbs = skeletons.coloured_limbs(len(names), task.skeleton, pairs)
    colours = skeletons.point_colours(len(names), pairs)
    return [Objects([item], task.threshold, limbs, names, colours)]


def figures(task: Any, rows: Mapping[str, np.ndarray], folder: Path) -> None:
    """PCK over the tolerance, of all key points and of each, as a picture.

    Args:
      task: a `Pose`.
      rows: of an evaluation.
      folder: gets `pck.png`.
    """
    # Without pyplot there is no window and no figure that stays in memory.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found, truth, lengths = task.measured(rows)
    tolerances = np.linspace(0, max(0.5, 1.5 * task.tolerance), 61)
    hit = np.array([hits(found, truth, lengths, one)[0].sum(0) for one in tolerances])
    counted = hits(found, truth, lengths, 0.0)[1].sum(0)
    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, name in enumerate(task.keypoint_names):
        if counted[index]:
            colour = np.array(pictures.class_colour(index)) / 255
            axes.plot(tolerances, hit[:, index] / counted[index], color=colour, label=name, lw=1)
    if counted.any():
        axes.plot(tolerances, hit.sum(1) / counted.sum(), color="black", label="all", lw=2.5)
    axes.axvline(task.tolerance, color="grey", lw=1, ls="--")
    what = " - ".join(task.keypoint_names[i] for i in task.segment) or "longer side of the box"
    axes.set(xlim=(0, tolerances[-1]), ylim=(0, 1.02), ylabel="found")
    axes.set_xlabel(f"distance / {what}")
    axes.grid(alpha=0.3)
    if counted.any():
        axes.legend(loc="lower right", fontsize=8)
    figure.savefig(folder / "pck.png", dpi=120)


_CURVES = 15  # key points of which the curve is shown, beside that of all


def annotated(task: Any, row: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """(an augmented training image with its key points, how many can be seen)."""
    truth = row["keypoints"][int(np.argmax(row["box_valid"]))]
    shown = (truth[:, 2] > 0) & bool(row["box_valid"].any())
    drawn = _drawn(task, row["image"], truth, shown, least=192)
    return drawn, f"{shown.sum()} of {len(truth)} key points"


def sections(task: Any, found: Evaluated) -> list[Section]:
    """PCK of each key point, and over the tolerance."""
    guessed, truth, lengths = task.measured(found.rows)
    hit, counted = (part.sum(0) for part in hits(guessed, truth, lengths, task.tolerance))
    names = task.keypoint_names
    lines = [[name, int(n), h / n if n else None] for name, n, h in zip(names, counted, hit)]
    lines.sort(key=lambda line: (line[2] is None, line[2]))
    tolerances = np.linspace(0, max(0.5, 1.5 * task.tolerance), 41)
    each = np.array([hits(guessed, truth, lengths, one)[0].sum(0) for one in tolerances])
    series = {}
    if counted.any():
        series["all"] = list(zip(tolerances.tolist(), each.sum(1) / counted.sum()))
    for k in np.flatnonzero(counted)[:_CURVES]:
        series[names[k]] = list(zip(tolerances.tolist(), each[:, k] / counted[k]))
    what = " - ".join(names[i] for i in task.segment) or "longer side of the box"
    caption = f"Within {task.tolerance:g} of {what}, the worst first"
    parts: list[Any] = [Table(("key point", "counted", "found"), lines, caption)]
    if series:
        x = f"distance / {what}"
        chart = charts.curves(
            "Found over the tolerance", series, x=x, y="found", marked=task.tolerance,
            marking="tolerance",
        )  # fmt: skip
        parts.append(chart)
    return [Section("Key points", parts)]


def mistakes(task: Any, found: Evaluated, most: int) -> list[Mistake]:
    """The images of which the smallest share of the key points is found."""
    guessed, truth, lengths = task.measured(found.rows)
    hit, counted = hits(guessed, truth, lengths, task.tolerance)
    right, count = hit.sum(1), counted.sum(1)
    share = np.where(count > 0, right / np.maximum(count, 1), np.inf)
    order = [int(row) for row in np.lexsort((-count, share))[:most] if count[row]]
    return [
        Mistake(
            row,
            f"{found.name(row)}: {int(right[row])} of {int(count[row])} key points",
            wrong=bool(right[row] < count[row]),
        )
        for row in order
    ]
