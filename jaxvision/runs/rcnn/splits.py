"""Splits with their proposals."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from jaxvision.classical import rcnn
from jaxvision.classical.selective_search import selective_search
from jaxvision.data.stream import Stream, open_stream
from jaxvision.errors import UserError
from jaxvision.metrics.detection import proposal_recall
from jaxvision.progress import tracked
from jaxvision.runs.stages import Record, Stages
from jaxvision.tasks import configuration

COUNTS = (10, 50, 100, 300, 1000, 2000)  # proposals whose recall is told
_PARTS = ("train", "test")


def stages_in(folder: Path, config: ConfigDict, command: Callable[[str], str]) -> Stages:
    """The stages in a folder, which depend on the data of a configuration and its seed."""
    flat = json.loads(configuration.to_json(config))
    data = {f"data.{key}": value for key, value in sorted(flat["data"].items())}
    for key in ("data.threads", "data.workers", "data.cache"):
        data.pop(key, None)
    return Stages(folder, {**data, "seed": config.seed}, command)


@dataclass(frozen=True)
class Part:
    """A split with its proposals.

    Attributes:
      stream: of the images.
      proposals: of each image.
      objects: of each image.
    """

    stream: Stream
    proposals: list[np.ndarray]
    objects: list[rcnn.Objects]

    def __len__(self) -> int:
        return len(self.proposals)

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The image that boxes are on."""
        found: np.ndarray = self.stream[index]["image"]
        return found


def streams(config: ConfigDict) -> dict[str, Stream]:
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
    for part, stream in streams(config).items():
        split = partial(split_of, arrays, part)
        objects = [
            rcnn.Objects(*each)
            for each in zip(split("object_boxes"), split("object_label"), split("object_crowd"))
        ]
        found[part] = Part(stream, split("proposals"), objects)
    return found


def split_of(arrays: Mapping[str, np.ndarray], part: str, name: str) -> list[np.ndarray]:
    return np.split(arrays[f"{part}/{name}"], arrays[f"{part}/{name}_ends"][:-1])


def joined(part: str, name: str, each: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    ends = np.cumsum([len(one) for one in each])
    return {f"{part}/{name}": np.concatenate(each), f"{part}/{name}_ends": ends}


def windows_of(part: Part, classes: int) -> list[rcnn.Windows]:
    return [rcnn.windows_of(boxes, there, classes)
            for boxes, there in zip(part.proposals, part.objects)]  # fmt: skip


def make_proposals(config: ConfigDict, stages: Stages, settings: Mapping[str, Any]) -> Record:
    """Boxes of selective search for each image, and the objects.

    Args:
      settings: `train` and `test` images at most (0: all), `mode`, `limit` proposals of an image
        at most, `min_side` of them.
    """
    arrays: dict[str, np.ndarray] = {}
    recall, seconds, counts = {}, 0.0, {}
    for part, stream in streams(config).items():
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
            rows.append([record[key][there] for key in ("boxes", "box_label", "box_crowd")])
        arrays |= joined(part, "proposals", boxes)
        for name, each in zip(("boxes", "label", "crowd"), zip(*rows)):
            arrays |= joined(part, f"object_{name}", each)
        real = [box[~crowd] for box, _, crowd in rows]
        recall[part], counts[part] = proposal_recall(boxes, real, COUNTS), count
    total = sum(counts.values())
    notes = {
        "images": counts,
        "proposals": int(sum(len(arrays[f"{part}/proposals"]) for part in _PARTS)),
        "seconds_per_image": seconds / total,
        "recall": {part: {str(k): v for k, v in found.items()} for part, found in recall.items()},
    }
    return stages.write("proposals", arrays, settings, (), notes)
