"""What multi-label classification shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.tasks import pictures
from jaxvision.tasks.shown import Bars, Shown


def picture(task: Any, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
    """A grid of images with the classes found; missed ones after a minus; wrong sets in red.

    Args:
      task: a `Multilabel`.
      batch: host arrays, `labels` if they are known.
      outputs: of `task.predict`.

    Returns:
      uint8 [h, w, 3].
    """
    found = np.asarray(outputs["labels"])
    truth = np.asarray(batch.get("labels", found)).astype(bool)
    captions = []
    for guess, true in zip(found, truth):
        names = [task.class_names[i] for i in np.flatnonzero(guess)]
        names += [f"-{task.class_names[i]}" for i in np.flatnonzero(true & ~guess)]
        captions.append(", ".join(names) or "none")
    wrong = [bool(w) for w in (found != truth).any(-1)]
    return pictures.captioned_grid(np.asarray(batch["image"]), captions, wrong)


def lines(task: Any, sums: Mapping[str, Any]) -> list[str]:
    """What is said of an evaluation beside its metrics."""
    counts = sums["labels"]
    return [f"{int(counts.exact)} of {int(counts.images)} sets of labels are exactly right"]


def summary(task: Any, prediction: Any, top: int = 5) -> dict[str, Any]:
    """JSON-able: the classes found, then the next likeliest up to `top`."""
    probabilities = prediction.outputs["probabilities"]
    order = np.argsort(-probabilities, kind="stable")
    order = order[: max(top, int((probabilities >= task.threshold).sum()))]
    return {
        "classes": [
            {
                "name": task.class_names[i],
                "probability": round(float(probabilities[i]), 6),
                "found": bool(probabilities[i] >= task.threshold),
            }
            for i in order
        ]
    }


def cell(task: Any, prediction: Any, top: int = 5) -> str:
    """One line for the table of `predict`."""
    classes = [one for one in summary(task, prediction)["classes"] if one["found"]]
    return "  ".join(f"{one['name']} {one['probability']:.1%}" for one in classes) or "none"


# The ends of the names of what `write` writes for each image.
ENDINGS = (".png",)


def write(task: Any, prediction: Any, folder: Path, stem: str) -> None:
    """The photograph beside its likeliest classes, as `stem.png`."""
    classes = summary(task, prediction)["classes"]
    pictures.save_ranked(prediction.image, classes, folder / f"{stem}.png")


def shown(task: Any, prediction: Any) -> list[Shown]:
    """The classes found, and the next likeliest; see `jaxvision.tasks.shown`."""
    classes = summary(task, prediction)["classes"]
    names, values, found = ([one[k] for one in classes] for k in ("name", "probability", "found"))
    return [Bars(names, values, found)]
