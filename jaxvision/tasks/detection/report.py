"""What detection shows."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxvision.tasks import pictures
from jaxvision.tasks.detection.task import on_photograph


def picture(task: Any, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
    """Pairs of images: the true boxes (if known) on the left, those found on the right.

    Args:
      task: a `Detection`.
      batch: host arrays, with the annotation `instances` if it is known.
      outputs: of `task.predict`.

    Returns:
      uint8 [h, w, 3].
    """
    tiles = []
    for row, image in enumerate(np.asarray(batch["image"])):
        found = {name: np.asarray(value)[row] for name, value in outputs.items()}
        sides = [_drawn(task, image, *_sure(task, found))]
        if "boxes" in batch:
            kept = np.asarray(batch["box_valid"][row])
            boxes, labels = batch["boxes"][row][kept], batch["box_label"][row][kept]
            sides.insert(0, _drawn(task, image, boxes, labels, None))
        tiles.append(np.concatenate(sides, 1))
    return pictures.grid(np.stack(tiles), columns=2)


def _sure(task: Any, found: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """(boxes, labels, scores) of one image's objects from the threshold on."""
    kept = found["valid"] & (found["scores"] >= task.threshold)
    return found["boxes"][kept].astype(np.float32), found["labels"][kept], found["scores"][kept]


def _drawn(
    task: Any, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray | None
) -> np.ndarray:
    texts = [task.class_names[label] for label in labels]
    if scores is not None:
        texts = [f"{text} {score:.2f}" for text, score in zip(texts, scores)]
    return pictures.labelled(image, boxes, texts, labels)


def _on_photograph(task: Any, prediction: Any) -> tuple[np.ndarray, ...]:
    """(boxes, labels, scores) from the threshold on, in pixels of the photograph."""
    boxes, labels, scores = _sure(task, prediction.outputs)
    return on_photograph(prediction.geometry, boxes, task.clip), labels, scores


def summary(task: Any, prediction: Any, top: int = 5) -> dict[str, Any]:
    """JSON-able: `boxes` (x0, y0, x1, y1), `scores`, `classes`, from the highest score on."""
    boxes, labels, scores = _on_photograph(task, prediction)
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


# The ends of the names of what `write` writes for each image.
ENDINGS = (".png",)


def write(task: Any, prediction: Any, folder: Path, stem: str) -> None:
    """The photograph with the objects found, as `stem.png`."""
    drawn = _drawn(task, prediction.image, *_on_photograph(task, prediction))
    Image.fromarray(drawn).save(folder / f"{stem}.png")
