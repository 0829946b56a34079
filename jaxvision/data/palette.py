"""The palette of a run: colours of pixels, as `Facts.palette` has them, channels from 0 to 255.

Chen et al., Generative Pretraining from Pixels, 2020, learn 512 by k-means. They are learned of
images as training sees them, behind the host transforms.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.errors import UserError
from jaxvision.progress import tracked

Palette = tuple[tuple[float, ...], ...]

_IMAGES, _PIXELS = 1000, 65_536  # that are looked at
_BATCH = 50


def of(data: Any, stream: Any | None) -> Palette:
    """The palette that `data.palette` asks for; () where it asks for none.

    Args:
      data: the group of a configuration.
      stream: of which colours are learned; None: what is known without is wanted.

    Raises:
      UserError: the file has no colours, or there are not as many.
    """
    wanted = data.get("palette", 0)
    if isinstance(wanted, str):
        return load(Path(wanted).expanduser())
    return () if stream is None or not wanted else learn(stream, wanted)


def learn(stream: Any, count: int) -> Palette:
    """The centres of so many clusters of pixels, from dark to light.

    Args:
      stream: a `jaxvision.data.stream.Stream` of training, whose seed decides all that is drawn.
      count: how many.

    Raises:
      UserError: its records have no single image, or fewer colours.
    """
    from jaxvision.classical.kmeans import kmeans

    images = min(_IMAGES, stream.order.count)
    rng, drawn = np.random.default_rng(stream.order.seed), []
    for start in tracked(range(0, images, _BATCH), "Learning colours"):
        batch = stream.batch(range(start, min(start + _BATCH, images)))
        if "image" not in batch:
            raise UserError("data.palette is learned of records with one image, not of views.")
        pixels = batch["image"].reshape(-1, batch["image"].shape[-1])
        share = -(-_PIXELS * len(batch["image"]) // images)
        drawn.append(rng.permutation(pixels)[:share])
    points = np.concatenate(drawn)
    different = len(np.unique(points, axis=0))
    if not 0 < count <= different:
        raise UserError(
            f"data.palette={count}: the pixels of {stream.spec!r} have {different} colours."
        )
    centers = np.asarray(kmeans(points.astype(np.float32), count, seed=stream.order.seed).centers)
    centers = centers[np.argsort(centers.sum(1), kind="stable")]
    return as_palette(np.round(centers.astype(np.float64), 3))


def load(path: Path) -> Palette:
    """The palette in a file: `facts.json` of a run, or transformers' `preprocessor_config.json`.

    Raises:
      UserError: it has none, or cannot be read.
    """
    try:
        given = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"Cannot read the colours of {path}: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"Cannot read the colours of {path}: {error}.") from error
    try:
        if given.get("clusters"):  # from -1 to 1
            return as_palette([[(value + 1) * 127.5 for value in row] for row in given["clusters"]])
        if given.get("palette"):
            return as_palette(given["palette"])
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"The colours of {path} are damaged: {error}.") from error
    raise UserError(
        f"{path} has no colours; expected `palette`, as facts.json of a run has it, or `clusters`, "
        "as preprocessor_config.json of an Image GPT."
    )


def as_palette(values: Any) -> Palette:
    """Rows of numbers as a palette.

    Raises:
      ValueError: they are no finite numbers, or of unequal lengths.
    """
    rows = [np.asarray(row, np.float64) for row in values]
    if any(row.ndim != 1 or row.shape != rows[0].shape for row in rows):
        raise ValueError("a palette is rows of as many numbers each")
    if not all(np.isfinite(row).all() for row in rows):
        raise ValueError("a palette is rows of finite numbers")
    return tuple(tuple(row.tolist()) for row in rows if row.size)
