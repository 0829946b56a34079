"""Trained networks as ONNX, for onnxruntime and whatever else reads it, by jax2onnx.

A graph takes and gives what a program of `jaxvision.runs.exporting` does. It is made of the plain
form of each op (`ops/forms.py`), and run by onnxruntime on a few images before it is written: where
it says something else than the network, it is refused.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.errors import InconclusiveDimensionOperation

from jaxvision.errors import UserError
from jaxvision.ops.forms import plain
from jaxvision.runs.exporting import Predict, Program, describe, predictor
from jaxvision.runs.run import Run

# What jax2onnx raises where it has no form of an operation, or none for any number of images.
_REFUSALS = (NotImplementedError, TypeError, ValueError, InconclusiveDimensionOperation)
_LIBRARIES = ("jax2onnx", "onnx", "onnxruntime")
# Of the largest value of an output: sums in another order. Of labels: ties.
_TOLERANCE, _AGREEING = 1e-3, 0.999


def export(run: Run, size: Sequence[int] | None = None) -> Program:
    """The run's `predict` of prepared images as an ONNX graph, `images` to its outputs by name.

    Args:
      run: see `exporting.export`.
      size: see there.

    Raises:
      UserError: see there; or a library is missing, or has no such operation, or what comes out is
        not what the network says.
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"ONNX wants {' and '.join(missing)}: pip install 'jaxvision[onnx]', in an environment "
            "of its own, for it holds Orbax at an older version."
        )
    import jax2onnx

    predict, image = predictor(run, size)
    outputs = jax.eval_shape(predict, image)
    names = sorted(outputs)

    def graph(images: jax.Array) -> tuple[jax.Array, ...]:
        found = predict(images)
        return tuple(found[name] for name in names)

    network = run.config.model.name
    try:
        with plain():
            model = jax2onnx.to_onnx(
                graph, [image], model_name=network, input_names=["images"], output_names=names
            )
    except _REFUSALS as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"{network} cannot be written as ONNX: {reason}. "
            "Without ONNX: a file that ends in .jaxexport, or `jaxvision export-torch`."
        ) from error
    data = model.SerializeToString()
    _check(data, predict, image, network)
    opset = {one.domain or "ai.onnx": one.version for one in model.opset_import}
    return Program(data, {**describe(run, image, outputs), "opset": opset})


def _check(data: bytes, predict: Predict, image: jax.ShapeDtypeStruct, network: str) -> None:
    """Compares what onnxruntime makes of three images with what the network says.

    Raises:
      UserError: they differ, or it does not run.
    """
    import onnxruntime

    size = (3, *image.shape[1:])
    images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    wanted: dict[str, Any] = jax.device_get(jax.jit(predict)(images))
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        found = session.run(sorted(wanted), {"images": images})
    except Exception as error:  # those of onnxruntime have no class in common
        raise UserError(f"onnxruntime does not run the graph of {network}: {error}") from error
    for name, got in zip(sorted(wanted), found, strict=True):
        if not _agree(got, wanted[name]):
            raise UserError(
                f"The graph of {network} is not written: onnxruntime's {name!r} differs from the "
                "network's."
            )


def _agree(got: np.ndarray, wanted: np.ndarray) -> bool:
    if got.shape != wanted.shape:
        return False
    if not np.issubdtype(wanted.dtype, np.floating):
        return bool((got == wanted).mean() >= _AGREEING)
    limit = _TOLERANCE * max(float(np.abs(wanted).max(initial=0)), 1e-6)
    return bool(np.allclose(got, wanted, rtol=0, atol=limit))
