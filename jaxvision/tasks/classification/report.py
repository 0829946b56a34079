"""What image classification shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.metrics import wilson_interval
from jaxvision.report import Figure, Gallery, Section, Table, Text, charts
from jaxvision.tasks import confusions, pictures
from jaxvision.tasks.evaluated import Evaluated, Mistake
from jaxvision.tasks.shown import Shown, likeliest


def picture(task: Any, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
    """A grid of images, each with its class and probability; wrong ones in red.

    Args:
      task: a `Classification`.
      batch: host arrays, `label` if it is known.
      outputs: of `task.predict`.

    Returns:
      uint8 [h, w, 3].
    """
    probabilities = np.asarray(outputs["probabilities"])
    predicted = probabilities.argmax(-1)
    truth = np.asarray(batch.get("label", predicted))
    captions = [
        f"{task.class_names[guess]} {probabilities[row, guess]:.0%}"
        + (f" (is {task.class_names[true]})" if guess != true else "")
        for row, (guess, true) in enumerate(zip(predicted, truth))
    ]
    wrong = [bool(w) for w in predicted != truth]
    return pictures.captioned_grid(np.asarray(batch["image"]), captions, wrong)


def lines(task: Any, sums: Mapping[str, Any]) -> list[str]:
    """What is said of an evaluation beside its metrics."""
    accuracy = sums["accuracy"]
    return [f"{int(accuracy.correct)} of {int(accuracy.count)} correct"]


def summary(task: Any, prediction: Any, top: int = 5) -> dict[str, Any]:
    """JSON-able: the likeliest classes."""
    probabilities = prediction.outputs["probabilities"]
    order = np.argsort(-probabilities, kind="stable")[:top]
    return {
        "classes": [
            {"name": task.class_names[i], "probability": round(float(probabilities[i]), 6)}
            for i in order
        ]
    }


def cell(task: Any, prediction: Any, top: int = 5) -> str:
    """One line for the table of `predict`."""
    classes = summary(task, prediction, top)["classes"]
    return "  ".join(f"{one['name']} {one['probability']:.1%}" for one in classes)


# The ends of the names of what `write` writes for each image.
ENDINGS = (".png",)


def write(task: Any, prediction: Any, folder: Path, stem: str) -> None:
    """The photograph beside its likeliest classes, as `stem.png`."""
    classes = summary(task, prediction)["classes"]
    pictures.save_ranked(prediction.image, classes, folder / f"{stem}.png")


def shown(task: Any, prediction: Any) -> list[Shown]:
    """The likeliest classes; see `jaxvision.tasks.shown`."""
    return [likeliest(task.class_names, prediction.outputs["probabilities"], 5)]


_SHOWN, _OF_CLASS, _CLASSES = 60, 3, 40  # mistakes of all, then of each of so many classes


def annotated(task: Any, row: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """(an augmented training image, its class or the shares of its classes)."""
    shares = row.get("label_probs")
    if shares is None:
        return row["image"], task.class_names[int(row["label"])]
    most = np.argsort(-shares, kind="stable")[:2]
    return row["image"], ", ".join(f"{task.class_names[k]} {shares[k]:.0%}" for k in most)


def sections(task: Any, found: Evaluated) -> list[Section]:
    """The confusion matrix, a table of the classes, how sure it is, and the worst mistakes."""
    rows, names = found.rows, task.class_names
    label, guess = np.asarray(rows["label"]), np.asarray(rows["found"])
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (label, guess), 1)
    classes = [
        _of_classes(names, counts),
        confusions.matrix(counts, names),
        *confusions.pairs(counts, names, "records"),
    ]
    gallery = Gallery(
        [_figure(task, found, mistake, image) for mistake, image in _with_images(task, found)],
        f"Of {found.split}, what is least likely of the true class first",
        filter="class",
    )
    return [
        Section("Classes", classes),
        Section("Confidence", _confidence(rows["probability"], label == guess)),
        Section("Predictions", [gallery]),
    ]


def _mistakes(task: Any, found: Evaluated) -> list[Mistake]:
    """The least likely of their true class first: of all, and some of each class."""
    rows, names = found.rows, task.class_names
    order = np.argsort(rows["probability_of_label"], kind="stable")
    chosen = set(order[:_SHOWN].tolist())
    for k in range(min(len(names), _CLASSES)):
        chosen.update(order[rows["label"][order] == k][:_OF_CLASS].tolist())
    return [_mistake(names, rows, int(row)) for row in order if int(row) in chosen]


def _mistake(names: Any, rows: Mapping[str, Any], row: int) -> Mistake:
    true, guess = names[int(rows["label"][row])], names[int(rows["found"][row])]
    text = f"{guess} ({rows['probability'][row]:.0%})"
    if true == guess:
        return Mistake(row, text, (true,), wrong=False)
    return Mistake(
        row, f"{text}, is {true} ({rows['probability_of_label'][row]:.1%})", (true, guess)
    )


def _with_images(task: Any, found: Evaluated) -> list[tuple[Mistake, np.ndarray]]:
    worst = _mistakes(task, found)
    images = np.asarray(found.read([mistake.row for mistake in worst])["image"])
    return list(zip(worst, images)) if images.ndim == 4 else []


def _figure(task: Any, found: Evaluated, mistake: Mistake, image: np.ndarray) -> Figure:
    name = found.name(mistake.row)
    alt = f"{name}: found {mistake.caption}"
    return Figure(pictures.as_colour(image), mistake.caption, alt, mistake.tags, mistake.wrong)


def _of_classes(names: Any, counts: np.ndarray) -> Table:
    right, there, guessed = np.diag(counts), counts.sum(1), counts.sum(0)
    lines = []
    for k, name in enumerate(names):
        low, high = wilson_interval(int(right[k]), int(there[k]))
        precision = right[k] / guessed[k] if guessed[k] else None
        recall = right[k] / there[k] if there[k] else None
        f1 = 2 * right[k] / (there[k] + guessed[k]) if there[k] + guessed[k] else None
        between = f"{low:.3f} to {high:.3f}" if there[k] else None
        lines.append([name, int(there[k]), recall, between, precision, f1])
    columns = ("class", "records", "recall", "95 % interval of recall", "precision", "F1")
    caption = "Each class; intervals are Wilson's (1927)"
    return Table(columns, sorted(lines, key=lambda line: (line[2] is None, line[2])), caption)


def _confidence(probability: np.ndarray, right: np.ndarray) -> list[Any]:
    """How often the network is right where it is so sure, in ten bins of confidence."""
    edges = np.linspace(0, 1, 11)
    place = np.clip(np.digitize(probability, edges) - 1, 0, 9)
    count = np.bincount(place, minlength=10)
    sure = np.bincount(place, probability, 10) / np.maximum(count, 1)
    share = np.bincount(place, right, 10) / np.maximum(count, 1)
    error = float((count / max(1, count.sum()) * np.abs(sure - share)).sum())
    kept = np.flatnonzero(count)
    points = [(float(sure[k]), float(share[k])) for k in kept]
    chart = charts.curves(
        "Accuracy by confidence",
        {"network": points, "exact": [(0.0, 0.0), (1.0, 1.0)]},
        x="confidence",
        y="accuracy",
        unit=True,
    )
    low = [[f"{edges[k]:.1f} to {edges[k + 1]:.1f}", int(count[k]), share[k]] for k in kept]
    table = Table(("confidence", "records", "accuracy"), low, "Records by confidence")
    text = (
        f"Expected calibration error (Guo et al. 2017), ten bins: {error:.4f}. "
        "Above the diagonal the network is too modest, below it too sure."
    )
    return [chart, Text(text), table]
