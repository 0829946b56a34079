"""What restoration shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.data.codecs import encode_png
from jaxvision.tasks import pictures
from jaxvision.tasks.shown import Numbers, Pictures, Shown

PICTURE = "enlarged"
ENDINGS = (".png",)


def picture(task: Any, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
    """A row for each image: enlarged by Pillow, by the network, and as it was.

    Args:
      task: a `Restoration`.
      batch: host arrays.
      outputs: of `task.pictured`.

    Returns:
      uint8 [h, w, 3].
    """
    columns = [outputs["bicubic"], outputs["enlarged"], batch["image"]]
    tiles = np.stack([np.asarray(column) for column in columns], 1)
    flat = tiles.reshape(-1, *tiles.shape[2:])
    return pictures.as_colour(pictures.grid(flat, columns=len(columns)))


def summary(task: Any, prediction: Any, top: int = 5) -> dict[str, Any]:
    """JSON-able: the size of what was made."""
    height, width = prediction.outputs["enlarged"].shape[:2]
    return {"width": width, "height": height, "scale": task.model.scale}


def cell(task: Any, prediction: Any, top: int = 5) -> str:
    """One line for the table of `predict`."""
    about = summary(task, prediction)
    return f"{about['width']}x{about['height']}, {about['scale']} times as large"


def write(task: Any, prediction: Any, folder: Path, stem: str) -> None:
    """The enlarged image, as `stem.png`."""
    (folder / f"{stem}.png").write_bytes(encode_png(prediction.outputs["enlarged"]))


def shown(task: Any, prediction: Any) -> list[Shown]:
    """The image and the enlarged one; see `jaxvision.tasks.shown`."""
    pair = [(prediction.network_image, "given"), (prediction.outputs["enlarged"], "enlarged")]
    return [Pictures(pair), Numbers([("size", cell(task, prediction))])]
