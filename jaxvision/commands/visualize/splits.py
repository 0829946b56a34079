"""Pictures of what a network does with a whole split."""

import argparse
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxvision import metrics, tasks
from jaxvision.data import annotations
from jaxvision.data.loader import Share, Stream, host_batches, open_stream
from jaxvision.errors import UserError
from jaxvision.inspect import draw
from jaxvision.inspect import patches as patches_of
from jaxvision.runs import Run
from jaxvision.runs.network import Network
from jaxvision.tasks import pictures


def _opened(options: argparse.Namespace, run: Run) -> tuple[Run, Stream]:
    """The run, with the classes of the data where it knew none, and the split in order.

    Raises:
      UserError: there is no such split, or it cannot be read.
    """
    config = run.config.copy_and_resolve_references()
    split = options.split or config.data.test or config.data.validation
    if not split:
        raise UserError("The configuration names no test split; give --split.")
    config.data.classes = tuple(config.data.classes) or tuple(run.facts.class_names)
    stream = open_stream(
        config.data,
        split,
        seed=config.seed,
        train=False,
        annotations=tasks.annotations(config.task),
        vocabulary=run.facts.vocabulary,
    )
    if not run.facts.class_names:
        names = tuple(config.data.classes) or tuple(stream.source.class_names)
        facts = dataclasses.replace(run.facts, class_names=names)
        run = dataclasses.replace(run, facts=facts)
    return run, stream


def _batches(run: Run, stream: Stream) -> Iterator[dict[str, Any]]:
    """The split in batches of the size at which the run is evaluated."""
    config = run.config
    size = config.eval.batch_size or config.train.batch_size
    yield from host_batches(
        stream,
        Share(size),
        0,
        -(-stream.order.count // size),
        threads=config.data.threads,
        workers=config.data.workers,
    )


def _annotated(run: Run, stream: Stream) -> Iterator[dict[str, Any]]:
    """The split in batches that carry what the task compares predictions with.

    Raises:
      UserError: the data have no such annotations.
    """
    wanted = annotations.named(tasks.annotations(run.config.task))
    for batch in _batches(run, stream):
        for kind in wanted:
            if kind not in annotations.in_batch(batch):
                raise UserError(
                    f"The data have no {kind.batch_keys[0]}; is this a data set for "
                    f"{run.config.task}?"
                )
        yield batch


def patches(options: argparse.Namespace, run: Run) -> tuple[np.ndarray, str]:
    """For each channel of a layer the nine places of the split that excite it most.

    Raises:
      UserError: there is no such split, layer or channel.
    """
    run, stream = _opened(options, run)
    shape = stream[0]["image"].shape
    network = Network.of(run, shape)
    layer = network.layer(options.layer)
    channels = network.channels(options.channels, layer, 16)
    batches = (
        (network.normalized(batch["image"]), np.where(batch["valid"], batch["image_id"], -1))
        for batch in _batches(run, stream)
    )
    best = patches_of.top_patches(network.model, network.variables, batches, layer, channels)
    fields = patches_of.influence(network.model, network.variables, shape, layer)
    mosaics = []
    for row in range(len(channels)):
        cuts = [
            pictures.as_colour(patches_of.cut(stream[int(index)]["image"], place, fields))
            for index, place in zip(best.images[row], best.places[row])
            if index >= 0
        ]
        blank = [np.full_like(cuts[0], 255)] * (9 - len(cuts))
        mosaics.append(draw.grid(np.stack([*cuts, *blank]), columns=3))
    captions = [f"channel {channel}" for channel in channels]
    picture = pictures.captioned_grid(np.stack(mosaics), captions, [False] * len(channels))
    size = "x".join(str(int((field[:, 1] - field[:, 0]).max())) for field in fields)
    return picture, f"Patches of {size} pixels for {len(channels)} channels of {layer}."


def confusion(options: argparse.Namespace, run: Run) -> tuple[np.ndarray, str]:
    """True classes by predicted ones.

    Raises:
      UserError: there is no such split, or the task has no confusion matrix.
    """
    run, stream = _opened(options, run)
    count = jax.jit(tasks.require(run.task, "confusion", "A confusion matrix"))
    variables = run.variables_for(stream[0]["image"].shape)
    matrix = None
    for batch in _annotated(run, stream):
        found = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.int64),  # more pixels than 32 bits count
            jax.device_get(count(variables, batch)),
        )
        matrix = found if matrix is None else metrics.add(matrix, found)
    assert matrix is not None  # for the split has a first image
    counts = np.asarray(matrix.counts)
    share = np.trace(counts) / max(1, counts.sum())
    picture = draw.confusion_matrix(matrix, options.percent)
    return picture, f"{np.trace(counts)} of {counts.sum()} correct ({share:.2%})."


def misclassified(options: argparse.Namespace, run: Run) -> tuple[np.ndarray, str]:
    """The most confident mistakes.

    Raises:
      UserError: there is no such split, the network is no classifier, or it makes no mistakes.
    """
    if options.count < 1:
        raise UserError(f"--count={options.count} must be at least 1.")
    run, stream = _opened(options, run)
    judge = jax.jit(tasks.require(run.task, "class_probabilities", "The picture of mistakes"))
    variables = run.variables_for(stream[0]["image"].shape)
    parts = []
    for batch in _annotated(run, stream):
        found, kept = judge(variables, batch["image"]), batch["valid"]
        parts.append((batch["image_id"][kept], batch["label"][kept], np.asarray(found)[kept]))
    indices, labels, probabilities = (np.concatenate(column) for column in zip(*parts))
    order = most_confident_mistakes(probabilities, labels)
    shown = order[: options.count]
    if not len(shown):
        raise UserError("No image of the split is misclassified.")
    names, guesses = run.task.class_names, probabilities.argmax(-1)
    captions = [
        f"{names[guesses[row]]} {probabilities[row, guesses[row]]:.0%} (is {names[labels[row]]})"
        for row in shown
    ]
    images = np.stack([stream[int(indices[row])]["image"] for row in shown])
    picture = pictures.captioned_grid(images, captions, [True] * len(shown), columns=6)
    return picture, f"{len(order)} of {len(labels)} images are misclassified."


def most_confident_mistakes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Indices of the misclassified of [n, k] probabilities, most confident first."""
    wrong = np.flatnonzero(probabilities.argmax(-1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(-1), kind="stable")]
