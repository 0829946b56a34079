"""What the network says of windows, or of whole images."""

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from jaxvision import models
from jaxvision.classical import rcnn
from jaxvision.errors import UserError, unknown
from jaxvision.interop import torch_weights
from jaxvision.ops.pooling import adaptive_avg_pool2d
from jaxvision.progress import tracked
from jaxvision.runs.rcnn.network import Network, fresh, inside, rounded
from jaxvision.runs.rcnn.splits import Part, class_names, joined, parts, split_of, windows_of
from jaxvision.runs.stages import Record, Stages
from jaxvision.tasks import base
from jaxvision.train import compilation

_WINDOWS = 64  # that the network sees at a time
_GRID = 3  # cells a side that a window's map is averaged to


def make_features(config: ConfigDict, stages: Stages, settings: Mapping[str, Any]) -> Record:
    """What the network says of windows (`crop`), or of whole images (`spp`).

    Args:
      settings: `network_settings`, `crop` and `padding` of windows; `pool`; `feature`, which is
        `pooled`, `last`, or the stride of a map; `side`, to which the shorter side of an image is
        brought for `spp`, 0 for its own.
    """
    splits = parts(config, stages)
    classes = len(class_names(config, splits["train"].stream))
    network = fresh(config, settings, classes + 1)
    if stages.fingerprints(["network"])["network"]:
        path = stages.folder / "network.safetensors"
        variables = torch_weights.load(
            path, network.variables, models.variant(network.name).convert
        )
        network = Network(network.name, network.options, variables, network.mean, network.std)
    of_crops = settings["pool"] == "crop"
    describe, stride = (_crop_features if of_crops else _whole_maps)(network, settings)
    arrays: dict[str, np.ndarray] = {}
    seconds, count = 0.0, 0
    for name, part in splits.items():
        seen, found = set(), []
        windows = windows_of(part, classes) if name == "train" else None
        for index in tracked(range(len(part)), f"Features of {part.stream.spec}", len(part)):
            image = part.image(index)
            boxes = windows[index].boxes if windows else part.proposals[index]
            if image.shape not in seen:  # compiling is not counted
                describe(image, boxes)
                seen.add(image.shape)
            begin = time.perf_counter()
            found.append(describe(image, boxes).astype(np.float16))
            seconds += time.perf_counter() - begin
            count += 1
        if of_crops:
            arrays |= joined(name, "features", found)
        else:
            arrays |= {f"{name}/map{index}": one for index, one in enumerate(found)}
    notes = {"seconds_per_image": seconds / count, "stride": stride}
    stage = f"features_{settings['pool']}"
    return stages.write(stage, arrays, settings, ("proposals", "network"), notes)


def _end(network: Network, settings: Mapping[str, Any], size: tuple[int, int]):
    """(function of variables and normalised images that gives a map or a vector, stride or 0).

    Raises:
      UserError: the network has no such feature.
    """
    wanted = str(settings["feature"])
    if wanted == "pooled":
        whole = models.create(network.name, 1, **network.options)
        return partial(base.features_before_classifier, whole), 0
    if "pyramid" not in models.variant(network.name).ends:
        raise UserError(f"{network.name} gives no maps; take --feature pooled.")
    model = models.create(network.name, features_only=True, **network.options)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    levels = jax.eval_shape(partial(model.apply, train=False), network.variables, image)
    strides = getattr(model, "feature_strides", None) or [
        2 ** round(math.log2(size[0] / level.shape[1])) for level in levels
    ]
    at = {str(stride): place for place, stride in enumerate(strides)}
    if wanted != "last" and wanted not in at:
        raise unknown("feature", wanted, ("last", "pooled", *at))
    place = len(strides) - 1 if wanted == "last" else at[wanted]

    def apply(variables: Any, image: Array) -> Array:
        levels: Any = model.apply(variables, image, train=False)
        return levels[place].astype(jnp.float32)

    return apply, int(strides[place])


def _crop_features(network: Network, settings: Mapping[str, Any]) -> Any:
    size, padding = settings["crop"], settings["padding"]
    apply, stride = _end(network, settings, (size, size))

    @partial(jax.jit, compiler_options=compilation.compiler_options())
    def batch(variables: Any, image: Array, sides: Array, boxes: Array) -> Array:
        shown = inside(network.normalised(image[None]), sides[None])
        found = apply(variables, rcnn.warp(shown, boxes[None], size, padding)[0])
        if stride and min(found.shape[1:3]) > _GRID:
            found = adaptive_avg_pool2d(found, _GRID)
        return found.reshape(len(boxes), -1)

    def describe(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        filled = filled_up(boxes)
        shown, sides = rounded(image), np.array(image.shape[:2])
        each = [
            batch(network.variables, shown, sides, filled[at : at + _WINDOWS])
            for at in range(0, len(filled), _WINDOWS)
        ]
        return np.concatenate([np.asarray(one) for one in each])[: len(boxes)]

    return describe, stride


def filled_up(boxes: np.ndarray) -> np.ndarray:
    """So many windows that few numbers of them are compiled; at least one."""
    missing = max(-(-len(boxes) // _WINDOWS), 1) * _WINDOWS - len(boxes)
    return np.pad(boxes.astype(np.float32), ((0, missing), (0, 0)))


def _whole_maps(network: Network, settings: Mapping[str, Any]) -> Any:
    if settings["feature"] == "pooled":
        raise UserError("--pool spp wants a map: --feature last, or the stride of one.")
    apply, stride = _end(network, settings, (256, 256))

    @partial(jax.jit, compiler_options=compilation.compiler_options())
    def maps(variables: Any, image: Array, sides: Array) -> Array:
        return apply(variables, inside(network.normalised(image[None]), sides[None]))[0]

    def describe(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        shown = _resized(image, settings["side"])
        sides = np.array(shown.shape[:2])
        return np.asarray(maps(network.variables, rounded(shown), sides))

    return describe, stride


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    """The image with a shorter side of so many pixels; 0 leaves it."""
    if not side:
        return image
    scale = side / min(image.shape[:2])
    size = tuple(round(length * scale) for length in image.shape[1::-1])
    found: np.ndarray = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return found


class Features:
    """Vectors of the windows of images, of a stage of features.

    Args:
      stages: that hold it.
      pool: which stage.
      name: `train` or `test`.
      part: that split.
      boxes: of the windows of each image.

    Raises:
      UserError: there is no such stage.
    """

    def __init__(
        self, stages: Stages, pool: str, name: str, part: Part, boxes: Sequence[np.ndarray]
    ):
        record = stages.require(f"features_{pool}")
        arrays = stages.arrays(f"features_{pool}", f"{name}/")
        self._boxes, self._pool = boxes, pool
        self._stride, self._side = record.notes["stride"], record.settings["side"]
        if pool == "crop":
            self._arrays = split_of(arrays, name, "features")
        else:
            self._arrays = [arrays[f"{name}/map{index}"] for index in range(len(boxes))]
            self._sides = [min(part.image(index).shape[:2]) for index in range(len(boxes))]

    def __call__(self, index: int) -> Float[np.ndarray, "n d"]:
        """float32 vectors of the windows of an image."""
        found, boxes = self._arrays[index].astype(np.float32), self._boxes[index]
        if self._pool == "crop":
            return found
        scale = self._side / self._sides[index] if self._side else 1.0
        filled = filled_up(boxes * np.float32(scale))
        return np.asarray(_pyramids(found, filled, self._stride))[: len(boxes)]


@partial(jax.jit, static_argnums=2)
def _pyramids(level: Array, boxes: Array, stride: int) -> Array:
    return rcnn.spatial_pyramid(level, boxes, stride)
