"""What classification and localisation shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxvision.tasks import pictures
from jaxvision.tasks.localization.task import extent_of, largest
from jaxvision.tasks.shown import Item, Objects, Shown, likeliest

_TRUE, _FOUND = "#2a9d2a", "#d02020"


def picture(task: Any, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
    """A grid of images with the box found in red, the true one (if known) in green.

    Args:
      task: a `Localization`.
      batch: host arrays, with the annotation `instances` if it is known.
      outputs: of `task.predict`.

    Returns:
      uint8 [h, w, 3].
    """
    images, found = np.asarray(batch["image"]), np.asarray(outputs["box"])
    guesses = np.asarray(outputs["probabilities"]).argmax(-1)
    truth = None
    if "boxes" in batch:
        truth = largest(batch["box_valid"], extent_of(batch), batch["box_label"], batch["boxes"])
    tiles, captions, wrong = [], [], []
    for row, image in enumerate(images):
        lines = [(found[row], _FOUND)]
        caption, bad = task.class_names[guesses[row]], False
        if truth is not None:
            lines.insert(0, (np.asarray(truth[1])[row], _TRUE))
            true = int(truth[0][row])
            bad = true != guesses[row]
            caption += f" (is {task.class_names[true]})" if bad else ""
        tiles.append(pictures.boxed(image, lines))
        captions.append(caption)
        wrong.append(bad)
    return pictures.captioned_grid(np.stack(tiles), captions, wrong)


def box_of(prediction: Any) -> np.ndarray:
    """The box [4] in pixels of the photograph, clipped to it."""
    return prediction.geometry.inverse_boxes(prediction.outputs["box"][None].astype(np.float32))[0]


def summary(task: Any, prediction: Any, top: int = 5) -> dict[str, Any]:
    """JSON-able: class, probability and box."""
    probabilities = prediction.outputs["probabilities"]
    label = int(probabilities.argmax())
    return {
        "class": task.class_names[label],
        "probability": round(float(probabilities[label]), 6),
        "box": [round(float(side), 2) for side in box_of(prediction)],
    }


def cell(task: Any, prediction: Any, top: int = 5) -> str:
    """One line for the table of `predict`."""
    one = summary(task, prediction)
    sides = " ".join(f"{side:.0f}" for side in one["box"])
    return f"{one['class']} {one['probability']:.1%} at {sides}"


# The ends of the names of what `write` writes for each image.
ENDINGS = (".png",)


def write(task: Any, prediction: Any, folder: Path, stem: str) -> None:
    """The photograph with the box found, as `stem.png`."""
    shown = pictures.boxed(prediction.image, [(box_of(prediction), _FOUND)])
    Image.fromarray(shown).save(folder / f"{stem}.png")


def shown(task: Any, prediction: Any) -> list[Shown]:
    """The box, and the likeliest classes; see `jaxvision.tasks.shown`."""
    probabilities = prediction.outputs["probabilities"]
    label = int(probabilities.argmax())
    item = Item(task.class_names[label], pictures.class_colour(label), box=box_of(prediction))
    return [Objects([item]), likeliest(task.class_names, probabilities, 5)]
