"""What image classification shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.tasks import pictures


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
