"""What a trained network says of photographs, in their own pixels."""

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvision import models, tasks
from jaxvision.data.annotations import KINDS
from jaxvision.data.codecs import CorruptImageError, decode_image
from jaxvision.data.geometry import Geometry
from jaxvision.data.sources import images_below, read_file
from jaxvision.data.stream import settings_of
from jaxvision.errors import UserError
from jaxvision.runs.run import Run
from jaxvision.runs.tiles import predict_joined, predict_tiled
from jaxvision.tasks.base import image_spec
from jaxvision.train import compilation
from jaxvision.train.setup import sizes_checked
from jaxvision.train.step import SAMPLING, stream
from jaxvision.train.writers import write_atomically

PAD_TO = 64
_BATCH = 32
_PIXELS = 2**21  # of a batch, at most, if it has more than one image
Waiting = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image.

    Attributes:
      image: the image, uint8 [h, w, c].
      network_image: what the network was given, before normalisation; perhaps padded, see
        `predict_files`.
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
class _Place:
    """A photograph's place in the order, with what is found of it."""

    file: Path | None
    image: np.ndarray
    record: dict[str, Any]
    found: "Prediction | CorruptImageError | None" = None


@dataclass
class _Batches:
    """Predicts images as they come, and gives what it finds in their order.

    Images of one shape wait for each other, and batches are filled up, so that each shape is
    compiled once.

    Args:
      run: the trained network.
      size: how many images may wait; those of a batch, if they are small.
      pad_to: see `predict_files`.
      compiling: entered with a text while a program is compiled.
    """

    run: Run
    size: int
    pad_to: int = PAD_TO
    compiling: Waiting = nullcontext
    _order: deque[_Place] = field(default_factory=deque)
    _waiting: dict[tuple[int, ...], list[_Place]] = field(default_factory=dict)
    _programs: dict[tuple[int, ...], Callable[..., Any]] = field(default_factory=dict)
    _same: bool | None = None

    def __post_init__(self):
        if self.pad_to < 1:
            raise UserError(f"Sides cannot be made multiples of {self.pad_to}.")
        self._task_predict = tasks.require(self.run.task, "predict", "Prediction")
        self._key = stream(self.run.config.seed, SAMPLING)

    def _record(self, image: np.ndarray, name: str) -> dict[str, Any]:
        identity = Geometry.identity(image.shape[:-1])
        record = self.run.prepare({"image": image, "geometry": identity}, np.random.default_rng(0))
        return self._rows(self._padded(record), name)

    def alone(self, image: np.ndarray) -> Prediction:
        """The prediction of an image, at once."""
        record = self._record(image, "the image")
        (outputs,) = self.of_one_shape([record])
        return Prediction(image, record["image"], outputs, record["geometry"])

    def add(self, file: Path | None, image: np.ndarray) -> Iterator[Any]:
        """Takes an image; gives the predictions that are ready."""
        place = _Place(file, image, self._record(image, str(file)))
        shape = place.record["image"].shape
        self._order.append(place)
        self._waiting.setdefault(shape, []).append(place)
        if len(self._waiting[shape]) == self._batch_size(shape):
            self._run(shape)
        elif len(self._order) == self.size:
            self._run(self._order[0].record["image"].shape)
        yield from self._ready()

    def fail(self, error: CorruptImageError) -> Iterator[Any]:
        """Takes an image that cannot be read; gives the predictions that are ready."""
        self._order.append(_Place(None, np.empty(0), {}, error))
        yield from self._ready()

    def flush(self) -> Iterator[Any]:
        """The predictions of what is waiting."""
        for shape in list(self._waiting):
            self._run(shape)
        yield from self._ready()

    def _ready(self) -> Iterator[Any]:
        while self._order and self._order[0].found is not None:
            yield self._order.popleft().found

    def _batch_size(self, shape: tuple[int, ...]) -> int:
        return max(1, min(self.size, _PIXELS // math.prod(shape[:-1])))

    @cached_property
    def _pads(self) -> bool:
        """Whether images come in many sizes, and the network sees no difference between them."""
        task, run = self.run.task, self.run
        axes = len(models.variant(run.config.model.name).input_shape) - 1
        return axes == 2 and hasattr(task, "pixel_probabilities") and not run.one_size

    def _padded(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record with its mirror image below and to the right, up to multiples of `pad_to`."""
        if self.pad_to == 1 or not self._pads:
            return record
        size = record["image"].shape[:2]
        whole = tuple(-(-side // self.pad_to) * self.pad_to for side in size)
        if whole == size or not self._resizable(whole):
            return record
        after = [(0, want - have) for have, want in zip(size, whole)]
        image = np.pad(record["image"], (*after, (0, 0)), mode="symmetric")
        geometry = record["geometry"].then(Geometry.pad(size, 0, 0, *whole))
        return {**record, "image": image, "geometry": geometry}

    def _rows(self, record: dict[str, Any], name: str) -> dict[str, Any]:
        """The record with the rows of a batch that the task needs, as far as it has them."""
        task = self.run.task
        if not task.needs:
            return record
        settings = settings_of(self.run.config.data, len(task.class_names))
        for kind in KINDS.values():
            if set(task.needs) & set(kind.batch_keys) and kind.present(record):
                record = {**record, **kind.pad(record, name, settings)}
        return record

    def _resizable(self, size: tuple[int, ...]) -> bool:
        """Whether the network's parameters are the same for images of another size.

        Others (positions, relative biases of the whole image) depend on where the image ends.
        """
        if self._same is None:
            channels = self.run.config.data.channels
            wider = (size[0], size[1] + self.pad_to)
            shapes = [self.run.shapes_for((*one, channels)) for one in (size, wider)]
            self._same = shapes[0] == shapes[1]
        return self._same

    def _program(self, variables: Any, batch: dict[str, np.ndarray]) -> Callable[..., Any]:
        shape = batch["image"].shape
        if shape not in self._programs:
            size = "x".join(map(str, shape[1:-1]))
            run, own = self.run, image_spec(self.run.image_shape)
            waiting = self.compiling(f"Compiling for images of {size}")
            with waiting, sizes_checked(run.config, own, batch):
                compiled = compilation.compile_now(self._task_predict, variables, batch, self._key)
            self._programs[shape] = compiled.call
        return self._programs[shape]

    def forget(self, kept: int) -> None:
        """Forgets the oldest programs but so many."""
        for shape in list(self._programs)[:-kept]:
            del self._programs[shape]

    def of_one_shape(self, records: Sequence[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
        """The outputs of records, at most a batch, whose images have one shape."""
        shape = records[0]["image"].shape
        size = self._batch_size(shape)
        batch = {"valid": np.arange(size) < len(records)}
        given = [key for key in self.run.task.needs if key in records[0]]
        for key in ("image", *given):
            rows = np.stack([record[key] for record in records])
            batch[key] = np.pad(rows, ((0, size - len(rows)), *[(0, 0)] * (rows.ndim - 1)))
        variables = self.run.variables_for(shape)
        outputs = jax.device_get(self._program(variables, batch)(variables, batch, self._key))
        return [{key: value[row] for key, value in outputs.items()} for row in range(len(records))]

    def _run(self, shape: tuple[int, ...]) -> None:
        """Predicts the images of a shape that are waiting."""
        places = self._waiting.pop(shape)
        for place, own in zip(places, self.of_one_shape([place.record for place in places])):
            seen, geometry = place.record["image"], place.record["geometry"]
            place.found = Prediction(place.image, seen, own, geometry, place.file)


def predict(run: Run, images: Sequence[Any], pad_to: int = PAD_TO) -> list[Prediction]:
    """See `Run.predict`."""
    channels = run.config.data.channels
    batches = _Batches(run, min(_BATCH, max(1, len(images))), pad_to)
    found: list[Prediction] = []
    for image in images:
        if isinstance(image, (str, Path)):
            file = Path(image)
            found += batches.add(file, read_image(run, file))
        else:
            found += batches.add(None, _checked(image, channels))
    return [*found, *batches.flush()]


def one_by_one(
    run: Run, compiling: Waiting = nullcontext, kept: int = 8
) -> Callable[[Any], Prediction]:
    """A function that predicts one image, [h, w, c], at a time, as long as it is wanted.

    What it gives of an image is what `predict` gives, and depends on no image before.

    Args:
      run: the trained network.
      compiling: entered with a text while a program is compiled.
      kept: programs, each of a shape of prepared images; the one that was compiled first is
        forgotten for another.

    Raises:
      UserError: the task does not predict.
    """
    batches = _Batches(run, 1, compiling=compiling)

    def predict(image: Any) -> Prediction:
        found = batches.alone(_checked(image, run.config.data.channels))
        batches.forget(kept)
        return found

    return predict


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
    pad_to: int = PAD_TO,
    compiling: Waiting = nullcontext,
) -> Iterator[Prediction | CorruptImageError]:
    """Predictions in the order of the files; an unreadable file gives its error instead.

    Args:
      run: the trained network.
      files: images.
      tile: its side, or (height, width), of volumes (depth, height, width); images are then not
        transformed but predicted at their own size, tile by tile.
      overlap: of tiles, see `tiles.predict_tiled`.
      pad_to: where pixels are predicted, and the preparation leaves images of several sizes, they
        are continued by their mirror image to sides that are multiples of this, so that fewer
        programs are compiled; 1 leaves them. Networks whose parameters depend on the size, and
        volumes, are left too.
      compiling: entered with a text while a program is compiled.

    Raises:
      UserError: weights or configuration are wrong.
    """
    whole = None if tile is None else _tiled(run, tile, overlap, compiling)
    batches = None
    if whole is None:
        batches = _Batches(run, min(_BATCH, len(files)), pad_to, compiling)
    for file in files:
        try:
            image = read_image(run, file)
        except CorruptImageError as error:
            if batches is None:
                yield error
            else:
                yield from batches.fail(error)
            continue
        if batches is not None:
            yield from batches.add(file, image)
        elif whole is not None:
            geometry = Geometry.identity(image.shape[:-1])
            yield Prediction(image, image, whole(image), geometry, file)
    if batches is not None:
        yield from batches.flush()


def _tiled(
    run: Run, tile: tuple[int, ...], overlap: float, compiling: Waiting
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """What predicts an image at its own size.

    Raises:
      UserError: the task does not predict by tiles, or tile or weights are wrong.
    """
    method = tasks.require(run.task, ("pixel_probabilities", "join_tiles"), "Prediction by tiles")
    axes = len(models.variant(run.config.model.name).input_shape) - 1
    tile = tile * axes if len(tile) == 1 else tile
    sides = "x".join(map(str, tile))
    if len(tile) != axes:
        raise UserError(f"Tiles of {run.config.model.name} have {axes} sides, not {sides}.")
    if min(tile) < 1 or not 0 <= overlap < 1:
        raise UserError(f"Tiles of {sides} that overlap by {overlap} do not exist.")
    if run.task.needs:
        raise UserError(
            f"{run.config.model.name} cannot predict by tiles, as it needs "
            f"{' and '.join(run.task.needs)} of the whole image."
        )
    if hasattr(run.task, "join_tiles"):
        apart = _one_by_one(run, compiling)
        return lambda image: predict_joined(apart, method, image, tile, overlap)
    shape = (*tile, run.config.data.channels)
    variables = run.variables_for(shape)
    with compiling(f"Compiling for tiles of {sides}"):
        blank = jax.ShapeDtypeStruct((1, *shape), np.uint8)
        compiled = compilation.compile_now(method, variables, blank).call
    return lambda image: predict_tiled(partial(compiled, variables), image, tile, overlap)


def _one_by_one(run: Run, compiling: Waiting) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """What predicts an image as it is, without its batch axis."""
    batches = _Batches(run, 1, 1, compiling)

    def predict(image: np.ndarray) -> dict[str, np.ndarray]:
        return batches.of_one_shape([{"image": image}])[0]

    return predict


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
    written: dict[str, Any] = {"predictions.json": summaries}
    if hasattr(report, "files"):
        written |= report.files(run.task, run.facts, summaries)
    for name, content in written.items():
        write_atomically(folder / name, json.dumps(content, indent=2) + "\n")
