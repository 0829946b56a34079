"""Trained models at work: evaluating a split and predicting on image files."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from jaxvision import config as configuration
from jaxvision import metrics, models, pretrained, tasks
from jaxvision.data import transforms
from jaxvision.data.codecs import CorruptImageError, decode_image
from jaxvision.data.resizing import resize_mask
from jaxvision.data.sources import IMAGE_SUFFIXES, VOLUME_SUFFIX
from jaxvision.errors import UserError, unknown
from jaxvision.interop import torch_weights
from jaxvision.interop.published import resolve
from jaxvision.tasks import Task, pictures
from jaxvision.train import compilation, mesh, optimizer
from jaxvision.train.checkpoint import Checkpoints
from jaxvision.train.evaluation import evaluate
from jaxvision.train.loop import open_loader, with_classes
from jaxvision.train.step import init_state, init_variables
from jaxvision.train.tiles import predict_tiled
from jaxvision.train.writers import write_atomically

Shape = tuple[int, int, int]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """Where weights come from: a checkpoint of a run, or a weights file.

    Attributes:
      workdir: of the run, or None.
      checkpoint: "best", "latest" or a step.
      weights: a file or published weights (see `interop.published.resolve`), used where there is
        no workdir.
    """

    workdir: Path | None = None
    checkpoint: str = "best"
    weights: str = ""


def stored_config(workdir: Path, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """The configuration of the run in a workdir, with `overrides` as on the command line.

    Raises:
      UserError: there is no run, or an override is wrong.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"No run in {workdir}: it has no config.json.")
    config = configuration.from_json(path.read_text())
    for key, value in (overrides or {}).items():
        configuration.override(config, key, value)
    if overrides:
        configuration.validate(config)
    return config


def variables_of(config: ConfigDict, task: Task, origin: Origin, shape: Shape) -> dict[str, Any]:
    """The variables to evaluate or predict with (averaged ones where the run kept them).

    Raises:
      UserError: no such checkpoint or file, or it belongs to another model.
    """
    fresh = jax.eval_shape(lambda: init_variables(task, config.seed, shape))
    if origin.workdir is None:
        fresh.pop("teacher", None)
        return pretrained.load_into(config.model.name, task.model, origin.weights, fresh)
    with _checkpoints(origin.workdir, config) as checkpoints:
        step = _step_of(checkpoints, origin)
        depths = optimizer.depths_for(config, task.model, shape)
        update = optimizer.build(config, fresh["params"], lambda _: jnp.zeros(()), depths)
        like = jax.eval_shape(lambda v: init_state(v, update, config.optimizer.ema > 0), fresh)
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        placed = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), like
        )
        restored = checkpoints.restore(placed, step)
        assert restored is not None  # a given step is restored or refused
        variables = restored[0].variables(averaged=True)
        variables.pop("teacher", None)
        return variables


def run_variables(origin: Origin) -> dict[str, Any]:
    """The variables of a run, for images of the size that it was trained on.

    Raises:
      UserError: there is no run or no such checkpoint, or it is of an older jaxvision, which did
        not store the size.
    """
    assert origin.workdir is not None
    config = stored_config(origin.workdir)
    with _checkpoints(origin.workdir, config) as checkpoints:
        step = _step_of(checkpoints, origin)
        shape = checkpoints.meta(step).get("image_shape")
    if shape is None:
        raise UserError(f"{origin.workdir} does not say its images' size; train on with it first.")
    return variables_of(config, tasks.create(config, config.data.classes), origin, tuple(shape))


@contextlib.contextmanager
def _checkpoints(workdir: Path, config: ConfigDict) -> Iterator[Checkpoints]:
    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def _step_of(checkpoints: Checkpoints, origin: Origin) -> int:
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"No checkpoint in {checkpoints.folder}.")
    if origin.checkpoint == "latest":
        return steps[-1]
    if origin.checkpoint == "best":
        best = checkpoints.meta(steps[-1])["progress"]["best_step"]
        return best if best in steps else steps[-1]
    if origin.checkpoint.isdigit():
        return int(origin.checkpoint)
    raise unknown("checkpoint", origin.checkpoint, ["best", "latest", *map(str, steps)])


def published_config(model: str, weights: str, overrides: Mapping[str, Any]) -> ConfigDict:
    """The configuration to use published weights with: classes and preparation of images.

    What nothing is known of (a file of one's own) is prepared as is usual, see `pretrained.usual`.

    Raises:
      UserError: no such network, weights or key; or it is for volumes.
    """
    entry = models.variant(model)
    if len(entry.input_shape) != 3:
        raise UserError(f"{model} is for volumes; give --config and --weights.")
    path, known = resolve(weights, model)
    if known is None:
        count = pretrained.classes_in(entry, torch_weights.read_state_dict(path))
        if not count:
            raise UserError(f"{path} has no {entry.classifier[0]!r}; it is not of {model}.")
        known = pretrained.usual(model, count)
    config = configuration.default_config()
    config.task, config.model.name = entry.task, model
    config.data.channels = entry.input_shape[-1]
    config.data.classes = pretrained.class_names(known)
    config.data.mean, config.data.std = known.mean, known.std
    config.data.eval_transforms = pretrained.preparation(known)
    for key, value in overrides.items():
        configuration.override(config, key, value)
    configuration.validate(config)
    return config


def evaluate_split(
    config: ConfigDict, origin: Origin, split: str
) -> tuple[dict[str, float], dict[str, Any]]:
    """(metrics by plain name, accumulators) of a split.

    Raises:
      UserError: data, weights or configuration are wrong; see the message.
    """
    config = config.copy_and_resolve_references()
    config.mesh.data, config.mesh.fsdp = -1, 1
    compilation.use_cache(config.compilation_cache)
    devices = mesh.make(config)
    mesh.check_batch(config.eval.batch_size or config.train.batch_size, devices, "eval.batch_size")
    loader = open_loader(config, split, devices, train=False)
    config = with_classes(config, loader.stream.source.class_names)
    task = tasks.create(config, config.data.classes)
    shape = loader.stream[0]["image"].shape
    variables = variables_of(config, task, origin, shape)
    variables = jax.device_put(variables, mesh.replicated(devices))
    step = jax.jit(task.metrics, compiler_options=compilation.compiler_options())
    found = evaluate(step, variables, loader.batches()) or {}
    if loader.corrupt:
        names = ", ".join(sorted(loader.corrupt)[:20])
        logger.warning("Skipped %d unreadable images: %s", len(loader.corrupt), names)
    return metrics.compute(found), found


# -- prediction -----------------------------------------------------------------------------------


def image_files(inputs: Sequence[str]) -> list[Path]:
    """Image files named by the inputs; folders stand for all images below them.

    Raises:
      UserError: an input does not exist, or none holds an image.
    """
    files: list[Path] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            known = (*IMAGE_SUFFIXES, VOLUME_SUFFIX)
            files += sorted(p for p in path.rglob("*") if p.suffix.lower() in known)
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"No such file or folder: {name}.")
    if not files:
        raise UserError(f"No image in {', '.join(inputs)}.")
    return files


@dataclass(frozen=True)
class Prediction:
    """What the model says of one file.

    Attributes:
      image: the decoded file, uint8 [h, w, c].
      network_image: what the network saw, before normalisation.
      outputs: this image's rows of `task.predict`.
    """

    file: Path
    image: np.ndarray
    network_image: np.ndarray
    outputs: dict[str, np.ndarray]


def predict_files(
    config: ConfigDict,
    origin: Origin,
    files: Sequence[Path],
    batch_size: int = 32,
    tile: tuple[int, ...] | None = None,
    overlap: float = 0.25,
) -> Iterator[Prediction | CorruptImageError]:
    """Predictions in the order of the files; an unreadable file gives its error instead.

    Args:
      config: of the network.
      origin: of its weights.
      files: images.
      batch_size: images that are predicted at once.
      tile: its side, or (height, width), of volumes (depth, height, width); images are then not
        transformed but segmented at their own size, tile by tile.
      overlap: of tiles, see `tiles.predict_tiled`.

    Raises:
      UserError: weights or configuration are wrong.
    """
    if not config.data.classes:
        raise UserError("data.classes is not known; set --config.data.classes=['cat','dog'].")
    compilation.use_cache(config.compilation_cache)
    task = tasks.create(config, config.data.classes)
    transform = transforms.compose(config.data.eval_transforms)
    predict = jax.jit(task.predict, compiler_options=compilation.compiler_options())
    variables: Any = None
    waiting: list[tuple[Path, np.ndarray, np.ndarray]] = []

    def flush() -> Iterator[Prediction]:
        nonlocal variables
        if not waiting:
            return
        images = np.stack([network for _, _, network in waiting])
        if variables is None:
            variables = variables_of(config, task, origin, images.shape[1:])
        # Filled up to full batches, so that a folder compiles once.
        missing = min(batch_size, len(files)) - len(images)
        filled = np.pad(images, ((0, missing), *[(0, 0)] * (images.ndim - 1)))
        outputs = jax.device_get(predict(variables, filled))
        for row, (file, image, network) in enumerate(waiting):
            yield Prediction(file, image, network, {k: v[row] for k, v in outputs.items()})
        waiting.clear()

    if tile is not None:
        see = _tiled(config, task, origin, tile, overlap)
    for file in files:
        try:
            image = decode_image(_bytes(file), config.data.channels, str(file))
        except CorruptImageError as error:
            yield from flush()
            yield error
            continue
        if tile is not None:
            yield Prediction(file, image, image, see(image))
            continue
        network = transform({"image": image}, np.random.default_rng(0))["image"]
        if waiting and waiting[0][2].shape != network.shape:
            yield from flush()
        waiting.append((file, image, network))
        if len(waiting) == batch_size:
            yield from flush()
    yield from flush()


def _tiled(
    config: ConfigDict, task: Any, origin: Origin, tile: tuple[int, ...], overlap: float
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """What segments an image at its own size.

    Raises:
      UserError: the task is another, or tile, weights or configuration are wrong.
    """
    if config.task != "segmentation":
        raise UserError(f"Tiles are for segmentation; this is {config.task}.")
    axes = len(models.variant(config.model.name).input_shape) - 1
    tile = tile * axes if len(tile) == 1 else tile
    sides = "x".join(map(str, tile))
    if len(tile) != axes:
        raise UserError(f"Tiles of {config.model.name} have {axes} sides, not {sides}.")
    if min(tile) < 1 or not 0 <= overlap < 1:
        raise UserError(f"Tiles of {sides} that overlap by {overlap} do not exist.")
    variables = variables_of(config, task, origin, (*tile, config.data.channels))
    probabilities = jax.jit(
        lambda variables, tiles: jax.nn.softmax(task.logits(variables, tiles)),
        compiler_options=compilation.compiler_options(),
    )
    return lambda image: predict_tiled(partial(probabilities, variables), image, tile, overlap)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CorruptImageError(str(file), error.strerror or str(error)) from error


def summarize(prediction: Prediction, class_names: Sequence[str], top: int = 5) -> dict[str, Any]:
    """JSON-able essence: the likeliest classes, or the share of pixels of each class found."""
    outputs = prediction.outputs
    summary: dict[str, Any] = {"file": str(prediction.file)}
    if "probabilities" in outputs:
        order = np.argsort(-outputs["probabilities"], kind="stable")[:top]
        summary["classes"] = [
            {"name": class_names[i], "probability": round(float(outputs["probabilities"][i]), 6)}
            for i in order
        ]
    else:
        labels, counts = np.unique(outputs["segmentation"], return_counts=True)
        share = counts / counts.sum()
        summary["classes"] = [
            {"name": class_names[labels[i]], "share": round(float(share[i]), 6)}
            for i in np.argsort(-share, kind="stable")
        ]
    return summary


def write_predictions(
    predictions: Iterable[Prediction],
    class_names: Sequence[str],
    folder: Path,
    files: Sequence[Path],
) -> None:
    """Writes `predictions.json` and, for each prediction, an annotated picture as soon as it comes.

    Segmentations are also written as palette PNGs of class indices at the file's own size, those of
    volumes as NumPy files; their picture is of the slice in the middle. Pictures are named after
    their files; files of the same name get a number. Pictures of an earlier call are replaced, the
    predicted files themselves never, even where they lie in the folder.

    Args:
      predictions: taken one at a time.
      class_names: of the network.
      folder: made if missing.
      files: that are predicted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    here = folder.resolve()
    taken = {file.name for file in files if file.resolve().parent == here}
    summaries = []
    for prediction in predictions:
        stem, number = prediction.file.stem, 1
        endings = (".png", "-classes.png", "-classes.npy")
        while taken & {stem + ending for ending in endings}:
            number += 1
            stem = f"{prediction.file.stem}-{number}"
        taken |= {stem + ending for ending in endings}
        summary = summarize(prediction, class_names)
        summaries.append({**summary, "picture": f"{stem}.png"})
        if "segmentation" in prediction.outputs:
            labels, image = prediction.outputs["segmentation"].astype(np.int32), prediction.image
            if labels.ndim == 3:
                np.save(folder / f"{stem}-classes.npy", labels)
                middle = len(labels) // 2
                labels, image = labels[middle], image[middle]
            labels = resize_mask(labels, image.shape[:2])
            picture = pictures.overlay(image, labels)
            if prediction.image.ndim == 3:
                indices = Image.fromarray(labels.astype(np.uint8))
                indices.putpalette(pictures.palette(256).tobytes())
                indices.save(folder / f"{stem}-classes.png")
        else:
            classes = summary["classes"]
            picture = pictures.ranked(
                prediction.image,
                [one["name"] for one in classes],
                [one["probability"] for one in classes],
            )
        Image.fromarray(picture).save(folder / f"{stem}.png")
    write_atomically(folder / "predictions.json", json.dumps(summaries, indent=2) + "\n")
