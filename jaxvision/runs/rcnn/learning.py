"""SVMs and box regressions of features, and what they find."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxvision.classical import rcnn
from jaxvision.classical.linear import Linear
from jaxvision.data.geometry import Geometry
from jaxvision.metrics.detection import Found, Truth, coco_scores, voc_scores
from jaxvision.progress import tracked
from jaxvision.runs.rcnn.features import Features, filled_up
from jaxvision.runs.rcnn.splits import Part, class_names, parts, windows_of
from jaxvision.runs.stages import Record, Stages
from jaxvision.tasks.detection.task import on_photograph


def _to_learn(config: ConfigDict, stages: Stages, pool: str) -> tuple[Features, list[rcnn.Windows]]:
    part = parts(config, stages)["train"]
    windows = windows_of(part, len(class_names(config, part.stream)))
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
            if way == list(ways)[-1] and (size, len(filled_up(vectors))) in seen:
                seconds, timed = seconds + time.perf_counter() - begin, timed + 1
            found[way].append(detections)
        seen.add((size, len(filled_up(vectors))))
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
    filled = filled_up(boxes)
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
