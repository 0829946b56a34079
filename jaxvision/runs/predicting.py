"""What a trained network says of photographs, in their own pixels."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvision import models, tasks
from jaxvision.data.codecs import CorruptImageError, decode_image
from jaxvision.data.geometry import Geometry
from jaxvision.data.sources import images_below, read_file
from jaxvision.errors import UserError
from jaxvision.runs.run import Run
from jaxvision.runs.tiles import predict_tiled
from jaxvision.train import compilation
from jaxvision.train.step import SAMPLING, stream
from jaxvision.train.writers import write_atomically

_BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image.

    Attributes:
      image: the image, uint8 [h, w, c].
      network_image: what the network was given, before normalisation.
      outputs: this image's rows of `task.predict`.
      geometry: how `image` became `network_image`; brings outputs back.
      file: where the image comes from; None if it was an array.
    """

    image: np.ndarray
    network_image: np.ndarray
    outputs: dict[str, np.ndarray]
    geometry: Geometry
    file: Path | None = None


def image_files(inputs: Sequence[str]) -> list[Path]:
    """Image files named by the inputs; folders stand for all images below them.

    Folders are walked as those of training data: hidden files are left out, links followed.

    Raises:
      UserError: an input does not exist, or none holds an image.
    """
    files: list[Path] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files += images_below(path)
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"No such file or folder: {name}.")
    if not files:
        raise UserError(f"No image in {', '.join(inputs)}.")
    return files


@dataclass
class _Batches:
    """Predicts images as they come, in batches of images of one shape.

    Batches are filled up, so that a folder compiles once.

    Args:
      run: the trained network.
      size: images of a batch.
    """

    run: Run
    size: int
    _waiting: list[tuple[Path | None, np.ndarray, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self):
        predict = tasks.require(self.run.task, "predict", "Prediction")
        self._key = stream(self.run.config.seed, SAMPLING)
        self._predict = jax.jit(predict, compiler_options=compilation.compiler_options())

    def add(self, file: Path | None, image: np.ndarray) -> Iterator[Prediction]:
        """Takes an image; gives the predictions that are ready."""
        identity = Geometry.identity(image.shape[:-1])
        record = self.run.prepare({"image": image, "geometry": identity}, np.random.default_rng(0))
        if self._waiting and self._waiting[0][2]["image"].shape != record["image"].shape:
            yield from self.flush()
        self._waiting.append((file, image, record))
        if len(self._waiting) == self.size:
            yield from self.flush()

    def flush(self) -> Iterator[Prediction]:
        """The predictions of what is waiting."""
        if not self._waiting:
            return
        images = np.stack([record["image"] for _, _, record in self._waiting])
        missing = self.size - len(images)
        batch = {
            "image": np.pad(images, ((0, missing), *[(0, 0)] * (images.ndim - 1))),
            "valid": np.arange(self.size) < len(images),
        }
        variables = self.run.variables_for(images.shape[1:])
        outputs = jax.device_get(self._predict(variables, batch, self._key))
        for row, (file, image, record) in enumerate(self._waiting):
            own = {key: value[row] for key, value in outputs.items()}
            yield Prediction(image, record["image"], own, record["geometry"], file)
        self._waiting.clear()


def predict(run: Run, images: Sequence[Any]) -> list[Prediction]:
    """See `Run.predict`."""
    channels = run.config.data.channels
    batches = _Batches(run, min(_BATCH, max(1, len(images))))
    found: list[Prediction] = []
    for image in images:
        if isinstance(image, (str, Path)):
            file = Path(image)
            found += batches.add(file, read_image(run, file))
        else:
            found += batches.add(None, _checked(image, channels))
    return [*found, *batches.flush()]


def _checked(image: Any, channels: int) -> np.ndarray:
    """An array as a decoder gives it.

    Raises:
      UserError: it is none.
    """
    array = np.asarray(image)
    if array.ndim == 2 and channels == 1:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != channels:
        raise UserError(
            f"An image is uint8 [h, w, {channels}], not {array.dtype} {list(array.shape)}."
        )
    return array


def predict_files(
    run: Run,
    files: Sequence[Path],
    tile: tuple[int, ...] | None = None,
    overlap: float = 0.25,
) -> Iterator[Prediction | CorruptImageError]:
    """Predictions in the order of the files; an unreadable file gives its error instead.

    Args:
      run: the trained network.
      files: images.
      tile: its side, or (height, width), of volumes (depth, height, width); images are then not
        transformed but predicted at their own size, tile by tile.
      overlap: of tiles, see `tiles.predict_tiled`.

    Raises:
      UserError: weights or configuration are wrong.
    """
    whole = None if tile is None else _tiled(run, tile, overlap)
    batches = _Batches(run, min(_BATCH, len(files))) if whole is None else None
    for file in files:
        try:
            image = read_image(run, file)
        except CorruptImageError as error:
            if batches is not None:
                yield from batches.flush()
            yield error
            continue
        if batches is not None:
            yield from batches.add(file, image)
        elif whole is not None:
            geometry = Geometry.identity(image.shape[:-1])
            yield Prediction(image, image, whole(image), geometry, file)
    if batches is not None:
        yield from batches.flush()


def _tiled(
    run: Run, tile: tuple[int, ...], overlap: float
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """What predicts an image at its own size.

    Raises:
      UserError: the task does not predict pixels, or tile or weights are wrong.
    """
    probabilities = tasks.require(run.task, "pixel_probabilities", "Prediction by tiles")
    axes = len(models.variant(run.config.model.name).input_shape) - 1
    tile = tile * axes if len(tile) == 1 else tile
    sides = "x".join(map(str, tile))
    if len(tile) != axes:
        raise UserError(f"Tiles of {run.config.model.name} have {axes} sides, not {sides}.")
    if min(tile) < 1 or not 0 <= overlap < 1:
        raise UserError(f"Tiles of {sides} that overlap by {overlap} do not exist.")
    variables = run.variables_for((*tile, run.config.data.channels))
    compiled = jax.jit(probabilities, compiler_options=compilation.compiler_options())
    return lambda image: predict_tiled(partial(compiled, variables), image, tile, overlap)


def read_image(run: Run, file: Path) -> np.ndarray:
    """The image of a file, as the run's data are decoded.

    Raises:
      CorruptImageError: it cannot be read.
    """
    data = run.config.data
    return decode_image(read_file(file), data.channels, str(file), data.max_image_pixels)


def write_predictions(
    run: Run, predictions: Iterable[Prediction], folder: Path, files: Sequence[Path]
) -> None:
    """Writes `predictions.json` and what the task's report writes of each prediction, as they come.

    What is written is named after the file; files of the same name get a number. What an earlier
    call wrote is replaced, the predicted files themselves never, even where they lie in the folder.

    Args:
      run: the trained network.
      predictions: of files, taken one at a time.
      folder: made if missing.
      files: that are predicted.
    """
    report = tasks.report(run.config.task)
    folder.mkdir(parents=True, exist_ok=True)
    here = folder.resolve()
    taken = {file.name for file in files if file.resolve().parent == here}
    summaries = []
    for prediction in predictions:
        assert prediction.file is not None
        stem, number = prediction.file.stem, 1
        while taken & {stem + ending for ending in report.ENDINGS}:
            number += 1
            stem = f"{prediction.file.stem}-{number}"
        taken |= {stem + ending for ending in report.ENDINGS}
        report.write(run.task, prediction, folder, stem)
        summary = report.summary(run.task, prediction)
        picture = {"picture": f"{stem}.png"}
        summaries.append({"file": str(prediction.file), **summary, **picture})
    write_atomically(folder / "predictions.json", json.dumps(summaries, indent=2) + "\n")
