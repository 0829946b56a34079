"""Trained networks as programs that run without this package: StableHLO, by `jax.export`.

A program takes prepared images, uint8 [b, *size, c] for any b, and gives what `Run.predict` gives
of them: a flat dict of arrays. One that makes images takes a seed and the numbers of samples, and
gives those of `runs.sampling.sample`. Normalisation and weights are in it.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.errors import FlaxError
from jax import export as jax_export
from jax.errors import InconclusiveDimensionOperation

from jaxvision import models, tasks
from jaxvision.data.facts import Facts
from jaxvision.data.tokenizer import Tokenizer
from jaxvision.errors import UserError, unknown
from jaxvision.ops.forms import portable
from jaxvision.runs.run import Run
from jaxvision.runs.sampling import check_settings
from jaxvision.tasks.sampling import AS_TRAINED, Sampling, keys_of
from jaxvision.train.report import of_split, stored_records
from jaxvision.train.step import SAMPLING, stream
from jaxvision.train.writers import write_atomically

ONNX = ".onnx"
ENDINGS = (".jaxexport", ONNX)
PLATFORMS = ("cpu", "cuda", "tpu")
_KNOWN = (*PLATFORMS, "rocm")
_LARGEST = 2**31 - 2**25  # bytes; a place in the file is a number of 31 bits


Predict = Callable[[jax.Array], dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Program:
    """What a run predicts, to be called elsewhere.

    Attributes:
      data: of the file.
      about: what its user has to know of inputs and outputs, JSON-able.
      exported: `exported.call(images)` calls it, or `exported.call(seed, numbers, ...)`; None where
        it is of another runtime.
    """

    data: bytes
    about: dict[str, Any]
    exported: jax_export.Exported | None = None


def export(
    run: Run, size: Sequence[int] | None = None, platforms: Sequence[str] = PLATFORMS
) -> Program:
    """The run's `predict` of prepared images as one program for several platforms.

    Args:
      run: the trained network.
      size: of the images, (height, width) or (depth, height, width); as `Run.image_shape` says by
        default.
      platforms: that it can be compiled for: cpu, cuda, rocm, tpu.

    Raises:
      UserError: the task does not predict, or not from images alone, the network does not take
        images of this size, or its weights are too large for a file.
    """
    _check_platforms(platforms)
    predict, image = predictor(run, size)
    with portable():
        exported = jax_export.export(jax.jit(predict), platforms=platforms)(image)
    about = {**describe(run, image, _outputs(exported)), **_runtime(exported)}
    return Program(bytes(exported.serialize()), about, exported)


def predictor(run: Run, size: Sequence[int] | None = None) -> tuple[Predict, jax.ShapeDtypeStruct]:
    """What a run says of prepared images, and these: uint8 [b, *size, c] for any b.

    Args:
      run: see `export`.
      size: see there.

    Raises:
      UserError: see there.
    """
    predict = tasks.require(run.task, "predict", "Export")
    shape = (*(size or run.image_shape[:-1]), run.config.data.channels)
    if run.task.needs:
        raise UserError(
            f"{run.config.model.name} predicts from {' and '.join(run.task.needs)} beside the "
            "image; a program takes images alone."
        )
    _check_size(run, predict, shape)
    variables, key = run.variables_for(shape), stream(run.config.seed, SAMPLING)
    _check_weights(run, variables)

    def program(image: jax.Array) -> dict[str, jax.Array]:
        valid = jnp.ones(image.shape[:1], bool)
        return predict(variables, {"image": image, "valid": valid}, key)

    (batch,) = jax_export.symbolic_shape("b")
    image = jax.ShapeDtypeStruct((batch, *shape), jnp.uint8)
    try:
        with portable():  # jitted, it is not traced again
            jax.eval_shape(program, image)
    except (TypeError, InconclusiveDimensionOperation) as error:
        raise UserError(
            f"{run.config.model.name} cannot be traced for any number of images: {error}. "
            "A network takes it from image.shape[0], not from len(image)."
        ) from error
    return program, image


def export_samples(
    run: Run, settings: Sampling = AS_TRAINED, platforms: Sequence[str] = PLATFORMS
) -> Program:
    """What a run draws as one program for several platforms.

    It takes `seed` (uint32), `number` (int32 [b], for any b) and, where the task makes images of a
    class that is asked for, `label` (int32 [b]); image k is sample `number[k]` of the seed.

    Args:
      run: the trained network.
      settings: see there.
      platforms: see `export`.

    Raises:
      UserError: the task makes no images, or does not understand a setting, or its weights are too
        large for a file.
    """
    generate = tasks.require(run.task, "generate", "Export of samples")
    _check_platforms(platforms)
    check_settings(run.task, (), settings)
    task: Any = run.task
    variables = run.variables
    _check_weights(run, variables)

    def program(seed: jax.Array, number: jax.Array, *label: jax.Array) -> dict[str, jax.Array]:
        keys = keys_of(stream(seed, SAMPLING), number)
        return {
            "image": generate(variables, task.latents(keys), keys, *(label or [None]), settings)
        }

    (batch,) = jax_export.symbolic_shape("b")
    row = jax.ShapeDtypeStruct((batch,), jnp.int32)
    inputs = {"seed": jax.ShapeDtypeStruct((), jnp.uint32), "number": row}
    if "labels" in task.controls():
        inputs["label"] = row
    with portable():
        exported = jax_export.export(jax.jit(program), platforms=platforms)(*inputs.values())
    about = {
        **_origin(run, _outputs(exported)),
        "input": {name: _array(one) for name, one in inputs.items()},
        "settings": dataclasses.asdict(settings),
        **_runtime(exported),
    }
    return Program(bytes(exported.serialize()), about, exported)


def _check_platforms(platforms: Sequence[str]) -> None:
    """Raises:
    UserError: one is none.
    """
    for platform in platforms:
        if platform not in _KNOWN:
            raise unknown("platform", platform, _KNOWN)


def _check_size(run: Run, predict: Callable[..., Any], shape: tuple[int, ...]) -> None:
    """Traces the prediction of one image.

    Raises:
      UserError: it cannot be.
    """
    name, size = run.config.model.name, "x".join(map(str, shape[:-1]))
    axes = len(models.variant(name).input_shape) - 1
    if len(shape) - 1 != axes or min(shape) < 1:
        raise UserError(f"Images of {name} have {axes} sides, not {size}.")
    batch = {
        "image": jax.ShapeDtypeStruct((1, *shape), jnp.uint8),
        "valid": jax.ShapeDtypeStruct((1,), jnp.bool_),
    }
    key = stream(run.config.seed, SAMPLING)
    try:
        jax.eval_shape(predict, run.variables_for(shape), batch, key)
    except (FlaxError, TypeError, ValueError) as error:
        raise UserError(f"{name} does not take images of {size}: {error}") from error


def _check_weights(run: Run, variables: Any) -> None:
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
    if size > _LARGEST:
        raise UserError(
            f"The weights of {run.config.model.name} are {size / 1e9:.1f} GB; "
            f"a program holds at most {_LARGEST / 1e9:.1f} GB."
        )


def _outputs(exported: jax_export.Exported) -> dict[str, Any]:
    """What a program gives, as shapes."""
    return jax.tree.unflatten(exported.out_tree, exported.out_avals)


def _runtime(exported: jax_export.Exported) -> dict[str, Any]:
    """What runs it."""
    return {"platforms": list(exported.platforms), "jax": jax.__version__}


def _origin(run: Run, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of every program: where it comes from, how good it is, and what it gives."""
    learned = {} if run.folder is None else {"data": _data(run), "metrics": _metrics(run)}
    return {
        "task": run.config.task,
        "network": run.config.model.name,
        "weights": run.weights or f"step {run.step}",
        **learned,
        "outputs": {name: _array(one) for name, one in outputs.items()},
        "classes": list(run.task.class_names),
        **_names(run.facts),
    }


def _names(facts: Facts) -> dict[str, Any]:
    """What numbers in outputs stand for, beside classes: key points, tokens."""
    named = {"keypoints": list(facts.keypoint_names), "skeleton": [*map(list, facts.skeleton)]}
    if facts.vocabulary is not None:
        words = Tokenizer.of(facts.vocabulary)
        named["tokenizer"] = json.loads(words.definition)
        named["tokens"] = {"begin": words.begin, "end": words.end, "pad": words.pad}
    return {name: value for name, value in named.items() if value}


def _data(run: Run) -> dict[str, Any]:
    """What a run has learned from; of a folder no more than its own name."""
    data = run.config.data
    name = data.name if data.source == "tfds" else Path(data.dir).name
    return {"source": data.source, "name": name, "records": dict(run.facts.records)}


def _metrics(run: Run) -> dict[str, float]:
    """Of a run's checkpoint: those of the test, or else of the validation."""
    assert run.folder is not None
    records = [record for record in stored_records(run.folder) if record["step"] == run.step]
    known = of_split(records, "test") or of_split(records, "validation")
    return {k: v for record in known[-1:] for k, v in record.items() if k not in ("step", "split")}


def describe(run: Run, image: jax.ShapeDtypeStruct, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The `Program.about` of what is predicted, but for what runs it.

    Args:
      run: the trained network.
      image: what goes in, see `predictor`.
      outputs: what comes out, as shapes.
    """
    data = run.config.data
    return {
        **_origin(run, outputs),
        "input": {**_array(image), "channels": {1: "grey", 3: "RGB"}.get(data.channels, "")},
        "preparation": [dict(step) for step in data.eval_transforms],
        "preparation_gives_one_size": run.one_size,
        "normalisation": {"mean": list(data.mean), "std": list(data.std), "inside": True},
    }


def _array(one: Any) -> dict[str, Any]:
    shape = [side if isinstance(side, int) else str(side) for side in one.shape]
    return {"dtype": str(one.dtype), "shape": shape}


def write(program: Program, path: str | Path, licence: str = "") -> int:
    """Writes the program and, beside it, what it is as JSON; gives the program's size in bytes.

    Both are written under temporary names first, so that what is there is replaced whole or not.

    Args:
      program: see `export`.
      path: ends in `.jaxexport`, or in `.onnx` if it is that; the other file has the ending `.json`
        instead.
      licence: of the weights, as the other file is to say it.

    Raises:
      UserError: another ending, or the file cannot be written.
    """
    path = Path(path).expanduser()
    check_ending(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, program.data)
        about = {"program": path.name, "licence": licence or None, **program.about}
        write_atomically(path.with_suffix(".json"), json.dumps(about, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error}") from error
    return len(program.data)


def check_ending(path: Path) -> None:
    """Before what takes long.

    Raises:
      UserError: it is another than `.jaxexport` and `.onnx`.
    """
    if path.suffix not in ENDINGS:
        raise UserError(
            f"A program is written as {' or '.join(ENDINGS)}; {path} ends in {path.suffix!r}."
        )
