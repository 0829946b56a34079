"""Splits as arrays, and vectors that stand for their images: pixels or a trained network's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8
from ml_collections import ConfigDict

from jaxvision import runs, tasks
from jaxvision.commands import source
from jaxvision.data.loader import Share, host_batches, open_stream
from jaxvision.errors import UserError
from jaxvision.tasks import configuration
from jaxvision.train import compilation

_BATCH = 256


@dataclass(frozen=True)
class Split:
    """Images of one size and their classes, in memory."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]
    class_names: tuple[str, ...]


def configured(config: str | None, workdir: str | None, overrides: dict[str, Any]) -> ConfigDict:
    """The configuration of a config file, or else that of the run in `workdir`.

    Raises:
      UserError: neither is given, or the configuration is wrong.
    """
    if config:
        return configuration.load(config, overrides)
    if not workdir:
        raise UserError("Give --config FILE[:VARIANT], --features WORKDIR, or both.")
    return runs.stored_config(Path(workdir), overrides)


def read_split(config: ConfigDict, spec: str, limit: int = 0) -> Split:
    """The readable records of a split, in order, as evaluation sees them.

    Args:
      config: whose `data` group says where they are.
      spec: which split, e.g. `config.data.train`.
      limit: how many from the beginning (0: all).

    Raises:
      UserError: the split cannot be read, has no classes, or images differ in size.
    """
    if limit < 0:
        raise UserError(f"Cannot read {limit} images; give a number from 1, or 0 for all.")
    stream = open_stream(config.data, spec, seed=config.seed, train=False, annotations=("label",))
    count = min(limit or stream.order.count, stream.order.count)
    batches = host_batches(
        stream, Share(_BATCH), 0, -(-count // _BATCH),
        threads=config.data.threads, workers=config.data.workers,
    )  # fmt: skip
    images, labels = [], []
    for batch in batches:
        if "label" not in batch:
            raise UserError("The data have no labels; is this a data set for classification?")
        images.append(batch["image"][batch["valid"]])
        labels.append(batch["label"][batch["valid"]])
    names = tuple(config.data.classes) or stream.source.class_names
    return Split(np.concatenate(images)[:count], np.concatenate(labels)[:count], names)


def pixels(images: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n f"]:
    """Pixels from 0 to 1, row by row."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def deep(
    workdir: Path, images: UInt8[np.ndarray, "n h w c"], checkpoint: str = "tested"
) -> Float[np.ndarray, "n f"]:
    """A vector for each image: what the last layer of a trained classifier is given, for one.

    Args:
      workdir: of the run.
      images: as the run's network takes them.
      checkpoint: see `runs.open`.

    Raises:
      UserError: there is no run, its task has no features, or its images are of another shape.
    """
    return of_run(source.open_stored(str(workdir), checkpoint), images)


def of_run(
    run: runs.Run, images: UInt8[np.ndarray, "n h w c"], variables: dict[str, Any] | None = None
) -> Float[np.ndarray, "n f"]:
    """A vector for each image, see `deep`; by other variables than the run's, if they are given."""
    features = tasks.require(run.task, "features", "Comparing features")
    channels = run.config.data.channels
    if images.shape[-1] != channels:
        raise UserError(
            f"The run takes images of {channels} channels, not {images.shape[-1]}; "
            f"set --config.data.channels={channels}."
        )
    variables = run.variables if variables is None else variables
    if "features" not in run.programs:
        options = compilation.compiler_options()
        run.programs["features"] = jax.jit(features, compiler_options=options)
    apply = run.programs["features"]
    found = []
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        missing = min(_BATCH, len(images)) - len(batch)  # so that one shape is compiled
        filled = np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0)))
        found.append(np.asarray(apply(variables, filled), np.float32)[: len(batch)])
    return np.concatenate(found)
