"""What self-supervised learning shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxvision.classical.probes import unit
from jaxvision.tasks import pictures
from jaxvision.tasks.shown import Numbers, Shown

PICTURE = "neighbours"
_ROWS, _SHOWN = 8, 5
_IMAGES, _ACROSS = 32, 12  # reconstructions, and tiles of a row


def picture(task: Any, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
    """In each row one of the first images and those that are nearest to it by their features.

    Where a network says what was hidden from it, in each row what it saw, what it said, and the
    image, of several images.

    Args:
      task: a `Pretraining`.
      batch: host arrays, `label` if it is known: neighbours of another class are red.
      outputs: of `task.predict`, or of `task.pictured` if it has that.

    Returns:
      uint8 [h, w, 3].
    """
    if "hidden" in outputs:
        return _reconstructions(np.asarray(batch["image"]), outputs)
    images, vectors = np.asarray(batch["image"]), unit(np.asarray(outputs["features"]))
    order = np.argsort(-(vectors @ vectors.T), axis=1, kind="stable")
    labels = np.asarray(batch["label"]) if "label" in batch and task.class_names else None
    tiles, captions, wrong = [], [], []
    for row in range(min(_ROWS, len(images))):
        near = [row, *(int(i) for i in order[row] if i != row)][: 1 + _SHOWN]
        tiles += [images[i] for i in near]
        captions += ["" if labels is None else task.class_names[labels[i]] for i in near]
        wrong += [labels is not None and bool(labels[i] != labels[row]) for i in near]
    return pictures.captioned_grid(np.stack(tiles), captions, wrong, columns=1 + _SHOWN)


def _reconstructions(images: np.ndarray, outputs: Mapping[str, Any]) -> np.ndarray:
    shown = [outputs[name] for name in ("hidden", "reconstruction") if name in outputs]
    each = np.stack([*(np.asarray(one) for one in shown), images], 1)[:_IMAGES]
    columns = each.shape[1] * max(1, _ACROSS // each.shape[1])
    tiles = each.reshape(-1, *each.shape[2:])
    return pictures.as_colour(pictures.grid(tiles, columns=columns, least=80))


def summary(task: Any, prediction: Any, top: int = 5) -> dict[str, Any]:
    """JSON-able: the features."""
    return {"features": [round(float(v), 6) for v in prediction.outputs["features"]]}


def cell(task: Any, prediction: Any, top: int = 5) -> str:
    """One line for the table of `predict`."""
    features = prediction.outputs["features"]
    return f"{len(features)} features of norm {np.linalg.norm(features):.4g}"


# The ends of the names of what `write` writes for each image.
ENDINGS = (".png",)


def write(task: Any, prediction: Any, folder: Path, stem: str) -> None:
    """What the network was given, as `stem.png`."""
    Image.fromarray(pictures.as_colour(prediction.network_image)).save(folder / f"{stem}.png")


def shown(task: Any, prediction: Any) -> list[Shown]:
    """How many features there are, and how long their vector is; see `jaxvision.tasks.shown`."""
    features = prediction.outputs["features"]
    norm = float(np.linalg.norm(features))
    return [Numbers([("features", f"{len(features)}"), ("norm", f"{norm:.4g}")])]
