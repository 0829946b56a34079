"""The stages of R-CNN and SPP-net: proposals, a network, features, SVMs, boxes, an evaluation.

Each function makes one stage (`jaxvision.runs.stages`) of what the earlier ones hold; images are
read anew in each, as evaluation sees them (`data.eval_transforms`), and boxes are in their pixels.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from jaxvision import models, pretrained
from jaxvision.classical import rcnn
from jaxvision.classical.linear import Linear
from jaxvision.classical.selective_search import selective_search
from jaxvision.data import augment
from jaxvision.data.geometry import Geometry
from jaxvision.data.stream import Stream, open_stream
from jaxvision.errors import UserError, unknown
from jaxvision.interop import torch_weights
from jaxvision.losses import cross_entropy
from jaxvision.metrics.detection import (
    Found,
    Truth,
    coco_scores,
    proposal_recall,
    voc_scores,
)
from jaxvision.ops import random
from jaxvision.ops.pooling import adaptive_avg_pool2d
from jaxvision.progress import tracked
from jaxvision.runs.stages import Record, Stages
from jaxvision.tasks import base, configuration
from jaxvision.tasks.detection.task import on_photograph
from jaxvision.train import compilation, optimizer, schedule, weights

POOLS = ("crop", "spp")
COUNTS = (10, 50, 100, 300, 1000, 2000)  # proposals whose recall is told
_PARTS = ("train", "test")
_WINDOWS = 64  # that the network sees at a time
_GRID = 3  # cells a side that a window's map is averaged to
_MULTIPLE = 32  # of which images' sides are made, so that few shapes are compiled


def stages_in(folder: Path, config: ConfigDict, command: Callable[[str], str]) -> Stages:
    """The stages in a folder, which depend on the data of a configuration and its seed."""
    flat = json.loads(configuration.to_json(config))
    data = {f"data.{key}": value for key, value in sorted(flat["data"].items())}
    for key in ("data.threads", "data.workers", "data.cache"):
        data.pop(key, None)
    return Stages(folder, {**data, "seed": config.seed}, command)


# -- data -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A split with its proposals.

    Attributes:
      stream: of the images.
      proposals: of each image.
      objects: of each image.
      area: of the objects of each image.
    """

    stream: Stream
    proposals: list[np.ndarray]
    objects: list[rcnn.Objects]
    area: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.proposals)

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The image that boxes are on."""
        found: np.ndarray = self.stream[index]["image"]
        return found


def _streams(config: ConfigDict) -> dict[str, Stream]:
    """Raises:
    UserError: the data have no boxes, or images are not of three channels.
    """
    unused = ("instances", "instance_masks", "keypoints")
    specs = {"train": config.data.train, "test": config.data.test or config.data.validation}
    found = {}
    for part, spec in specs.items():
        stream = open_stream(
            config.data, spec, seed=config.seed, train=False, annotations=("instances",),
            unused=unused,
        )  # fmt: skip
        first = stream[0]
        if "boxes" not in first:
            raise UserError("The data have no boxes; is this a data set for detection?")
        if first["image"].ndim != 3 or first["image"].shape[-1] != 3:
            raise UserError("R-CNN takes colour images; set --config.data.channels=3.")
        found[part] = stream
    return found


def class_names(config: ConfigDict, stream: Stream) -> tuple[str, ...]:
    """Those of the data."""
    return tuple(config.data.classes) or tuple(stream.source.class_names)


def parts(config: ConfigDict, stages: Stages) -> dict[str, Part]:
    """The splits, with what the stage `proposals` holds.

    Raises:
      UserError: there is no such stage.
    """
    stages.require("proposals")
    arrays, found = stages.arrays("proposals"), {}
    for part, stream in _streams(config).items():
        split = partial(_split, arrays, part)
        objects = [
            rcnn.Objects(*each)
            for each in zip(split("object_boxes"), split("object_label"), split("object_crowd"))
        ]
        found[part] = Part(stream, split("proposals"), objects, split("object_area"))
    return found


def _split(arrays: Mapping[str, np.ndarray], part: str, name: str) -> list[np.ndarray]:
    return np.split(arrays[f"{part}/{name}"], arrays[f"{part}/{name}_ends"][:-1])


def _joined(part: str, name: str, each: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    ends = np.cumsum([len(one) for one in each])
    return {f"{part}/{name}": np.concatenate(each), f"{part}/{name}_ends": ends}


# -- proposals ------------------------------------------------------------------------------------


def make_proposals(config: ConfigDict, stages: Stages, settings: Mapping[str, Any]) -> Record:
    """Boxes of selective search for each image, and the objects.

    Args:
      settings: `train` and `test` images at most (0: all), `mode`, `limit` proposals of an image
        at most, `min_side` of them.
    """
    arrays: dict[str, np.ndarray] = {}
    recall, seconds, counts = {}, 0.0, {}
    for part, stream in _streams(config).items():
        count = min(settings[part] or stream.order.count, stream.order.count)
        boxes, rows = [], []
        for index in tracked(range(count), f"Proposals of {stream.spec}", count):
            record = stream[index]
            begin = time.perf_counter()
            boxes.append(
                selective_search(
                    record["image"], settings["mode"], min_side=settings["min_side"],
                    limit=settings["limit"], seed=config.seed,
                )
            )  # fmt: skip
            seconds += time.perf_counter() - begin
            there = record["box_valid"]
            area = record.get("box_area")
            if area is None:
                area = (record["boxes"][:, 2:] - record["boxes"][:, :2]).prod(-1)
            rows.append((record["boxes"][there], record["box_label"][there],
                         record["box_crowd"][there], area[there]))  # fmt: skip
        arrays |= _joined(part, "proposals", boxes)
        for name, each in zip(("boxes", "label", "crowd", "area"), zip(*rows)):
            arrays |= _joined(part, f"object_{name}", each)
        real = [box[~crowd] for box, _, crowd, _ in rows]
        recall[part], counts[part] = proposal_recall(boxes, real, COUNTS), count
    total = sum(counts.values())
    notes = {
        "images": counts,
        "proposals": int(sum(len(arrays[f"{part}/proposals"]) for part in _PARTS)),
        "seconds_per_image": seconds / total,
        "recall": {part: {str(k): v for k, v in found.items()} for part, found in recall.items()},
    }
    return stages.write("proposals", arrays, settings, (), notes)


# -- the network ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """The network that describes windows, before or after fine-tuning."""

    name: str
    options: Mapping[str, Any]
    variables: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalised(self, image: Array) -> Array:
        """uint8 [b h w c] as the network takes it."""
        return augment.normalize(augment.to_float(image), self.mean, self.std)


def network_settings(config: ConfigDict, network: str, weights: str) -> dict[str, Any]:
    """What stands for a network: its name, options and the weights that it starts from.

    Args:
      config: whose detector's encoder is taken, with its weights, where `network` is "".
      network: a registered classifier, or "".
      weights: see `pretrained.read`; "" is none.

    Raises:
      UserError: the configured detector stands on no other network, or there is no such network.
    """
    if network:
        options: dict[str, Any] = {}
    else:
        given = config.model.options.to_dict()
        network, _ = models.encoder_of(config.model.name, given)
        options, weights = given.get("encoder_options", {}), weights or config.model.encoder_weights
    classifiers = [name for name in models.names() if models.variant(name).role == "backbones"]
    if models.variant(network).role != "backbones":
        raise unknown("classifier", network, classifiers)
    return {"network": network, "network_options": options, "weights": weights}


def _fresh(config: ConfigDict, settings: Mapping[str, Any], classes: int) -> Network:
    """The network before fine-tuning, with a classifier of so many classes."""
    name, options, size = settings["network"], settings["network_options"], settings["crop"]
    if settings["weights"]:
        found = weights.read(settings["weights"], name, "encoder")
        _, variables = pretrained.create(
            name, found, classes, (size, size), 3, config.seed, **options
        )
    else:
        model = models.create(name, classes, **options)
        image = jnp.zeros((1, size, size, 3))
        init = jax.jit(partial(model.init, train=False))
        variables = dict(init(random.key(config.seed), image))
    return Network(name, options, variables, tuple(config.data.mean), tuple(config.data.std))


def make_network(config: ConfigDict, stages: Stages, settings: Mapping[str, Any]) -> Record:
    """Fine-tunes the network on windows: N + 1 classes, 32 of objects and 96 of none in a batch.

    Args:
      settings: `network_settings`, `crop` and `padding` of windows, `steps`. The optimiser and
        schedule are the configuration's.
    """
    part = parts(config, stages)["train"]
    names = class_names(config, part.stream)
    sample = rcnn.Sampler(_windows(part, len(names)), config.seed)
    network = _fresh(config, settings, len(names) + 1)
    model = models.create(network.name, len(names) + 1, **network.options)
    rate = schedule.learning_rate(
        config, total=settings["steps"], steps_per_epoch=settings["steps"]
    )
    rule = optimizer.build(config, network.variables["params"], rate)
    step = _tuning_step(model, network, rule, settings["crop"], settings["padding"])
    images = [part.image(index) for index in range(len(part))]
    sides = np.max([image.shape[:2] for image in images], 0)
    state = network.variables, rule.init(network.variables["params"])
    key, losses = random.key(config.seed), []
    begin = time.perf_counter()
    for number in tracked(range(settings["steps"]), "Fine-tuning", settings["steps"]):
        index, boxes, label = sample()
        shown = np.stack([_padded(images[i], tuple(sides)) for i in index])
        size = np.array([images[i].shape[:2] for i in index])
        state, loss = step(state, shown, size, boxes, label, jax.random.fold_in(key, number))
        losses.append(loss)
    values = np.asarray(jax.device_get(losses))
    if not np.isfinite(values).all():
        raise UserError("The loss of fine-tuning is not finite; lower optimizer.learning_rate.")
    path = stages.folder / "network.safetensors"
    torch_weights.save(path, state[0], models.variant(network.name).export)
    last = values[-max(1, len(values) // 10) :]
    notes = {"seconds": time.perf_counter() - begin, "loss": float(last.mean())}
    return stages.write("network", {"loss": values}, settings, ("proposals",), notes)


def _tuning_step(
    model: nn.Module, network: Network, rule: optax.GradientTransformation, size: int, padding: int
) -> Any:
    @partial(jax.jit, compiler_options=compilation.compiler_options())
    def step(state, shown, sizes, boxes, label, key):
        variables, opt_state = state
        others = {kind: tree for kind, tree in variables.items() if kind != "params"}
        flip_key, dropout_key = jax.random.split(key)
        images = _inside(network.normalised(shown), sizes)
        windows = rcnn.warp(images, boxes[:, None], size, padding)[:, 0]
        flipped = jax.random.bernoulli(flip_key, 0.5, label.shape)[:, None, None, None]
        windows = jnp.where(flipped, windows[:, :, ::-1], windows)

        def loss(params):
            output, updated = base.apply_train(model, params, others, windows, dropout_key)
            return cross_entropy(base.heads(output)["logits"], label)[0].mean(), updated

        (value, updated), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = rule.update(gradient, opt_state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return ({"params": params, **updated}, opt_state), value

    return step


def _padded(image: np.ndarray, sides: tuple[int, ...]) -> np.ndarray:
    return np.pad(image, [(0, side - have) for side, have in zip(sides, image.shape)] + [(0, 0)])


def _rounded(image: np.ndarray) -> np.ndarray:
    height, width = (-(-side // _MULTIPLE) * _MULTIPLE for side in image.shape[:2])
    return _padded(image, (height, width))


def _inside(images: Array, sizes: Array) -> Array:
    """Normalised images [b h w c], 0 outside of their sizes [b 2]."""
    rows, columns = jnp.arange(images.shape[1]), jnp.arange(images.shape[2])
    inside = (rows[:, None] < sizes[:, 0, None, None]) & (columns < sizes[:, 1, None, None])
    return jnp.where(inside[..., None], images, 0)


def _windows(part: Part, classes: int) -> list[rcnn.Windows]:
    return [rcnn.windows_of(boxes, there, classes)
            for boxes, there in zip(part.proposals, part.objects)]  # fmt: skip


# -- features -------------------------------------------------------------------------------------


def make_features(config: ConfigDict, stages: Stages, settings: Mapping[str, Any]) -> Record:
    """What the network says of windows (`crop`), or of whole images (`spp`).

    Args:
      settings: `network_settings`, `crop` and `padding` of windows; `pool`; `feature`, which is
        `pooled`, `last`, or the stride of a map; `side`, to which the shorter side of an image is
        brought for `spp`, 0 for its own.
    """
    splits = parts(config, stages)
    classes = len(class_names(config, splits["train"].stream))
    network = _fresh(config, settings, classes + 1)
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
        windows = _windows(part, classes) if name == "train" else None
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
            arrays |= _joined(name, "features", found)
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
        shown = _inside(network.normalised(image[None]), sides[None])
        found = apply(variables, rcnn.warp(shown, boxes[None], size, padding)[0])
        if stride and min(found.shape[1:3]) > _GRID:
            found = adaptive_avg_pool2d(found, _GRID)
        return found.reshape(len(boxes), -1)

    def describe(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        filled = _filled(boxes)
        shown, sides = _rounded(image), np.array(image.shape[:2])
        each = [
            batch(network.variables, shown, sides, filled[at : at + _WINDOWS])
            for at in range(0, len(filled), _WINDOWS)
        ]
        return np.concatenate([np.asarray(one) for one in each])[: len(boxes)]

    return describe, stride


def _filled(boxes: np.ndarray) -> np.ndarray:
    """So many windows that few numbers of them are compiled; at least one."""
    missing = max(-(-len(boxes) // _WINDOWS), 1) * _WINDOWS - len(boxes)
    return np.pad(boxes.astype(np.float32), ((0, missing), (0, 0)))


def _whole_maps(network: Network, settings: Mapping[str, Any]) -> Any:
    if settings["feature"] == "pooled":
        raise UserError("--pool spp wants a map: --feature last, or the stride of one.")
    apply, stride = _end(network, settings, (256, 256))

    @partial(jax.jit, compiler_options=compilation.compiler_options())
    def maps(variables: Any, image: Array, sides: Array) -> Array:
        return apply(variables, _inside(network.normalised(image[None]), sides[None]))[0]

    def describe(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        shown = _resized(image, settings["side"])
        sides = np.array(shown.shape[:2])
        return np.asarray(maps(network.variables, _rounded(shown), sides))

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
            self._arrays = _split(arrays, name, "features")
        else:
            self._arrays = [arrays[f"{name}/map{index}"] for index in range(len(boxes))]
            self._sides = [min(part.image(index).shape[:2]) for index in range(len(boxes))]

    def __call__(self, index: int) -> Float[np.ndarray, "n d"]:
        """float32 vectors of the windows of an image."""
        found, boxes = self._arrays[index].astype(np.float32), self._boxes[index]
        if self._pool == "crop":
            return found
        scale = self._side / self._sides[index] if self._side else 1.0
        filled = _filled(boxes * np.float32(scale))
        return np.asarray(_pyramids(found, filled, self._stride))[: len(boxes)]


@partial(jax.jit, static_argnums=2)
def _pyramids(level: Array, boxes: Array, stride: int) -> Array:
    return rcnn.spatial_pyramid(level, boxes, stride)


# -- what is learnt of features -------------------------------------------------------------------


def _to_learn(config: ConfigDict, stages: Stages, pool: str) -> tuple[Features, list[rcnn.Windows]]:
    part = parts(config, stages)["train"]
    windows = _windows(part, len(class_names(config, part.stream)))
    return Features(stages, pool, "train", part, [one.boxes for one in windows]), windows


def make_svms(config: ConfigDict, stages: Stages, settings: Mapping[str, Any]) -> Record:
    """Scores of classes.

    Args:
      settings: `pool`; `c` and `rounds` of `rcnn.fit_svms`.
    """
    pool = settings["pool"]
    features, windows = _to_learn(config, stages, pool)
    begin = time.perf_counter()
    found = rcnn.fit_svms(
        features, windows, c=settings["c"], rounds=settings["rounds"], seed=config.seed
    )
    notes = {
        "seconds": time.perf_counter() - begin,
        "samples": list(found.sizes),
        "mined": list(found.added),
    }
    arrays = {name: np.asarray(value) for name, value in found.model._asdict().items()}
    return stages.write(f"svm_{pool}", arrays, settings, (f"features_{pool}",), notes)


def make_boxes(config: ConfigDict, stages: Stages, settings: Mapping[str, Any]) -> Record:
    """How windows are moved.

    Args:
      settings: `pool`; `penalty` of `rcnn.fit_boxes`.
    """
    pool = settings["pool"]
    features, windows = _to_learn(config, stages, pool)
    begin = time.perf_counter()
    found = rcnn.fit_boxes(features, windows, penalty=settings["penalty"])
    notes = {
        "seconds": time.perf_counter() - begin,
        "windows": int(sum(len(one.regressed) for one in windows)),
    }
    return stages.write(f"boxes_{pool}", found._asdict(), settings, (f"features_{pool}",), notes)


# -- evaluation -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """What is found in the test split.

    Attributes:
      scores: COCO's and VOC's numbers, with moved boxes (`boxes`) and without (`windows`).
      seconds: per image, of each stage.
    """

    scores: dict[str, dict[str, float]]
    seconds: dict[str, float]


def evaluate(config: ConfigDict, stages: Stages, pool: str, threshold: float) -> Evaluation:
    """Finds the objects of the test split, and scores them on the photographs.

    Args:
      config: of the data; `detection.voc` and `detection.clip` are its.
      stages: with all that it takes; without `boxes` windows are not moved.
      pool: `crop` or `spp`.
      threshold: overlap of suppression.

    Raises:
      UserError: an earlier stage is missing.
    """
    part = parts(config, stages)["test"]
    stages.require(f"svm_{pool}")
    names = class_names(config, part.stream)
    model = Linear(**{k: jnp.asarray(v) for k, v in stages.arrays(f"svm_{pool}").items()})
    features = Features(stages, pool, "test", part, part.proposals)
    ways: dict[str, rcnn.Regression | None] = {"windows": None}
    if stages.read(f"boxes_{pool}"):
        stages.require(f"boxes_{pool}")
        ways["boxes"] = rcnn.Regression(**stages.arrays(f"boxes_{pool}"))
    found: dict[str, list[Any]] = {way: [] for way in ways}
    seconds, timed = 0.0, 0
    seen: set[tuple[tuple[int, ...], int]] = set()
    for index in tracked(range(len(part)), f"Evaluating {part.stream.spec}", len(part)):
        size = part.image(index).shape[:2]
        for way, regression in ways.items():
            begin = time.perf_counter()
            vectors = features(index)
            detections = _detected(
                vectors, part.proposals[index], model, regression, size, threshold
            )
            if way == list(ways)[-1] and (size, len(_filled(vectors))) in seen:
                seconds, timed = seconds + time.perf_counter() - begin, timed + 1
            found[way].append(detections)
        seen.add((size, len(_filled(vectors))))
    record = stages.require("proposals")
    times = {
        "proposals": float(record.notes["seconds_per_image"]),
        "features": float(stages.require(f"features_{pool}").notes["seconds_per_image"]),
        "scores and suppression": seconds / max(timed, 1),
    }
    scores = {way: _scores(config, part, each, names) for way, each in found.items()}
    return Evaluation(scores, times)


def _detected(
    vectors: np.ndarray,
    boxes: np.ndarray,
    model: Linear,
    regression: rcnn.Regression | None,
    size: Sequence[int],
    threshold: float,
) -> rcnn.Detections:
    filled = _filled(boxes)
    valid = np.arange(len(filled)) < len(boxes)
    vectors = np.pad(vectors, ((0, len(filled) - len(vectors)), (0, 0)))
    sides = np.array(size, np.float32)
    found = rcnn.detect(vectors, filled, valid, model, regression, sides, threshold)
    return rcnn.Detections(*(np.asarray(each)[np.asarray(found.valid)] for each in found))


def _scores(
    config: ConfigDict, part: Part, found: Sequence[rcnn.Detections], names: tuple[str, ...]
) -> dict[str, float]:
    """COCO's numbers, and those of `detection.voc`, of boxes on the photographs."""
    there, seen = [], []
    for index in range(len(part)):
        record, objects = part.stream[index], part.objects[index]
        size = tuple(map(int, record["image_size"]))
        way = Geometry.from_array(record["geometry"], size, size)
        scale = abs(np.linalg.det(way.matrix))
        there.append((np.full(len(objects.label), index), on_photograph(way, objects.boxes, True),
                      objects.label, objects.crowd, part.area[index] / scale))  # fmt: skip
        one = found[index]
        seen.append((np.full(len(one.labels), index),
                     on_photograph(way, np.asarray(one.boxes), config.detection.clip),
                     one.labels, one.scores))  # fmt: skip
    truth = Truth(*map(np.concatenate, zip(*there)))
    all_found = Found(*map(np.concatenate, zip(*seen)))
    scores = coco_scores(all_found, truth, range(len(part)), names)
    for year in config.detection.voc:
        scores |= voc_scores(all_found, truth, names, int(year))
    return scores
