"""What a trained generator draws: samples, ways between them, and parts of photographs anew."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from jaxvision import tasks
from jaxvision.data.codecs import decode_image
from jaxvision.data.geometry import Geometry
from jaxvision.data.sources import read_file
from jaxvision.errors import UserError, unknown
from jaxvision.progress import tracked
from jaxvision.runs.run import Run
from jaxvision.tasks.sampling import AS_TRAINED, Sampling, between, row_keys
from jaxvision.train import compilation
from jaxvision.train.step import SAMPLING, stream

BATCH = 64  # images that are made at a time


def sample(
    run: Run,
    count: int,
    seed: int = 0,
    labels: Sequence[int] = (),
    settings: Sampling = AS_TRAINED,
    first: int = 0,
) -> UInt8[np.ndarray, "n h w c"]:
    """New images; the first ones are the same for any count.

    Args:
      run: of a task that makes images.
      count: how many.
      seed: decides them.
      labels: their classes, in turn; () draws them.
      settings: see there.
      first: how many images of the seed are left out before.

    Raises:
      UserError: the task does not make images, or does not understand a setting.
    """
    task, keys, classes = _drawn(run, count, seed, labels, settings, first)
    return _made(run, task.latents(keys), keys, classes, settings)


def interpolate(
    run: Run,
    count: int,
    frames: int,
    seed: int = 0,
    labels: Sequence[int] = (),
    settings: Sampling = AS_TRAINED,
) -> UInt8[np.ndarray, "n f h w c"]:
    """Images on the way from each sample to the next, and from the last to the first.

    Row k begins with sample k, ends one step before the next, and keeps sample k's class: all rows
    one after another are a walk that comes back to where it began.

    Args:
      frames: images of a row.
      run, count, seed, labels, settings: as of `sample`.

    Raises:
      UserError: see `sample`; or samples are not made of latents.
    """
    task, keys, classes = _drawn(run, count, seed, labels, settings)
    latents = task.latents(keys)
    if not latents[0].size:
        raise UserError(
            "Samples of this network are not made of latents: nothing lies between them."
        )
    parts = jnp.arange(frames) / frames
    ways = jax.vmap(lambda part: between(latents, jnp.roll(latents, -1, 0), part), out_axes=1)
    flat = ways(parts).reshape(-1, *latents.shape[1:])
    keys, classes = jax.tree.map(lambda x: jnp.repeat(x, frames, 0), (keys, classes))
    images = _made(run, flat, keys, classes, settings)
    return images.reshape(count, frames, *images.shape[1:])


def inpaint(
    run: Run,
    photograph: Path,
    mask: Path,
    count: int,
    seed: int = 0,
    labels: Sequence[int] = (),
    settings: Sampling = AS_TRAINED,
) -> tuple[UInt8[np.ndarray, "h w c"], UInt8[np.ndarray, "n h w c"]]:
    """(a photograph as the network sees it, it with what a mask marks made anew).

    Args:
      photograph: its file.
      mask: a grey picture of the same size; what is brighter than half is made anew.
      run, count, seed, labels, settings: as of `sample`; of each is made one.

    Raises:
      UserError: the task does not do that, a file cannot be read, or sizes differ.
    """
    function = tasks.require(run.task, "inpaint", "Making parts of an image anew")
    channels = run.config.data.channels
    image = decode_image(read_file(photograph), channels)
    marked = decode_image(read_file(mask), 1)[..., 0] > 127
    if marked.shape != image.shape[:2]:
        have, want = ("x".join(map(str, x.shape[:2])) for x in (marked, image))
        raise UserError(f"{mask} has {have} pixels, {photograph} has {want}.")
    record: dict[str, Any] = {"image": image, "segmentation": marked.astype(np.uint8)}
    record["geometry"] = Geometry.identity(image.shape[:2])
    ready = run.prepare(record, np.random.default_rng(0))
    anew = ready["segmentation"] == 1
    if not anew.any():
        raise UserError(f"{mask} marks nothing of what the network sees of {photograph}.")
    task, keys, classes = _drawn(run, count, seed, labels, settings)
    task.check_mask(anew)
    images, masks = (jnp.broadcast_to(x, (count, *x.shape)) for x in (ready["image"], anew))

    def fill(variables: Any, inputs: tuple[Array, Array], keys: Array, classes: Any) -> Array:
        return function(variables, *inputs, keys, classes, settings)

    made = _in_batches(run, ("inpaint", settings), fill, (images, masks), keys, classes)
    return ready["image"], made


def check_settings(task: Any, labels: Sequence[int], settings: Sampling) -> None:
    """Whether a task understands what is asked of samples.

    Raises:
      UserError: it does not; says what it does.
    """
    default = Sampling()
    asked = [one.name for one in fields(Sampling)]
    asked = [name for name in asked if getattr(settings, name) != getattr(default, name)]
    for name in [*asked, *(["labels"] if labels else [])]:
        if name not in task.settings:
            has = ", ".join(task.settings) or "nothing"
            raise UserError(f"This network's samples have no {name}; what can be asked is: {has}.")


def labels_of(names: Sequence[str], class_names: Sequence[str]) -> tuple[int, ...]:
    """The numbers of classes that are named, or numbered.

    Raises:
      UserError: there is no such class.
    """
    found = []
    for name in names:
        if name in class_names:
            found.append(list(class_names).index(name))
        elif name.isdigit() and int(name) < len(class_names):
            found.append(int(name))
        else:
            raise unknown("class", name, class_names)
    return tuple(found)


def _drawn(
    run: Run, count: int, seed: int, labels: Sequence[int], settings: Sampling, first: int = 0
) -> tuple[Any, Array, Int[Array, " n"] | None]:
    """(the task, keys of the images, their classes)."""
    tasks.require(run.task, "generate", "Sampling")
    check_settings(run.task, labels, settings)
    rows = range(first, first + count)
    classes = jnp.asarray([labels[k % len(labels)] for k in rows]) if labels else None
    return run.task, row_keys(stream(seed, SAMPLING), count, first), classes


def _made(run: Run, latents: Array, keys: Array, classes: Any, settings: Sampling) -> np.ndarray:
    task: Any = run.task

    def make(variables: Any, latents: Array, keys: Array, classes: Any) -> Array:
        return task.generate(variables, latents, keys, classes, settings)

    return _in_batches(run, ("generate", settings), make, latents, keys, classes)


def _in_batches(
    run: Run, what: Hashable, make: Callable[..., Array], inputs: Any, keys: Array, classes: Any
) -> np.ndarray:
    """What is made of all rows, a batch at a time by one program, which `what` names."""
    if what not in run.programs:
        run.programs[what] = jax.jit(make, compiler_options=compilation.compiler_options())
    program = run.programs[what]
    count = len(keys)
    size = min(BATCH, count)
    made = []
    for start in tracked(range(0, count, size), "Sampling"):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        batch = jax.tree.map(itemgetter(rows), (inputs, keys, classes))
        images = jax.device_get(program(run.variables, *batch))
        made.append(np.asarray(images)[: count - start])
    return np.concatenate(made)
