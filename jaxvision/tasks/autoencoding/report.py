"""What autoencoding shows: images beside what is made of their codes."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxvision.tasks import pictures
from jaxvision.tasks.shown import Numbers, Pictures, Shown

PICTURE = "reconstructions"
_COLUMNS = 16
_NUMBERS = ("reconstruction", "kl", "psnr")


def picture(task: Any, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
    """Lines of images over their reconstructions, and samples below where there are any.

    Args:
      task: an `Autoencoding`.
      batch: host arrays, `image` among them.
      outputs: of `task.pictured`.

    Returns:
      uint8 [h, w, 3].
    """
    lines = [np.asarray(batch["image"]), np.asarray(outputs["image"])]
    if "samples" in outputs:
        lines.append(np.asarray(outputs["samples"]))
    blocks = []
    for start in range(0, len(lines[0]), _COLUMNS):
        parts = [line[start : start + _COLUMNS] for line in lines]
        blocks += parts if start == 0 else [_filled(part, _COLUMNS) for part in parts]
    return pictures.grid(np.concatenate(blocks), columns=len(blocks[0]))


def _filled(images: np.ndarray, count: int) -> np.ndarray:
    """`count` images, the last ones white."""
    return np.pad(images, ((0, count - len(images)), *[(0, 0)] * 3), constant_values=255)


def summary(task: Any, prediction: Any, top: int = 5) -> dict[str, Any]:
    """JSON-able: nats of pixels and of the code, PSNR in dB, how many codes are used.

    The PSNR of an image that comes back to the bit is none.
    """
    outputs = prediction.outputs
    given = {name: float(outputs[name]) for name in _NUMBERS if name in outputs}
    found: dict[str, Any] = {
        name: round(value, 6) if math.isfinite(value) else None for name, value in given.items()
    }
    if "codes" in outputs:
        found["codes_used"] = len(np.unique(outputs["codes"]))
    return found


def cell(task: Any, prediction: Any, top: int = 5) -> str:
    """One line for the table of `predict`."""
    found = summary(task, prediction)
    psnr = float(prediction.outputs["psnr"])
    parts = [f"PSNR {psnr:.2f} dB", f"reconstruction {found['reconstruction']:.2f} nats"]
    if "kl" in found:
        parts.append(f"kl {found['kl']:.2f} nats")
    if "codes_used" in found:
        parts.append(f"{found['codes_used']} codes")
    return ", ".join(parts)


# The ends of the names of what `write` writes for each image.
ENDINGS = (".png",)


def write(task: Any, prediction: Any, folder: Path, stem: str) -> None:
    """What the network was given, and beside it what it made of that, as `stem.png`."""
    both = np.stack([prediction.network_image, prediction.outputs["image"]])
    Image.fromarray(pictures.grid(both, columns=2, least=160)).save(folder / f"{stem}.png")


def shown(task: Any, prediction: Any) -> list[Shown]:
    """What the network was given, and what it made of that; see `jaxvision.tasks.shown`."""
    pair = [(prediction.network_image, "given"), (prediction.outputs["image"], "what came back")]
    units = {"reconstruction": " nats", "kl": " nats", "psnr": " dB"}
    said = [
        (name.replace("_", " "), "–" if value is None else f"{value:.5g}{units.get(name, '')}")
        for name, value in summary(task, prediction).items()
    ]
    return [Pictures(pair), Numbers(said)]
