"""SVMs and box regressions of features, and what they find."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxvision import tasks
from jaxvision.classical import rcnn
from jaxvision.classical.linear import Linear
from jaxvision.data.facts import Facts
from jaxvision.progress import tracked
from jaxvision.runs.rcnn.features import Features, filled_up
from jaxvision.runs.rcnn.splits import class_names, parts, windows_of
from jaxvision.runs.stages import Record, Stages


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
    rows_of = tasks.require(tasks.TASKS[config.task].task(), "object_rows", "R-CNN")
    rows: dict[str, list[Any]] = {way: [] for way in ways}
    seconds, timed = 0.0, 0
    seen: set[tuple[tuple[int, ...], int]] = set()
    for index in tracked(range(len(part)), f"Evaluating {part.stream.spec}", len(part)):
        record, boxes = part.stream[index], part.proposals[index]
        size = record["image"].shape[:2]
        begin = time.perf_counter()
        vectors = features(index)
        described = time.perf_counter() - begin
        for way, regression in ways.items():
            begin = time.perf_counter()
            found = _detected(vectors, boxes, model, regression, size, threshold)
            taken = described + time.perf_counter() - begin  # at last of the last way
            rows[way].append(rows_of(record, found._asdict()))
        shape = size, len(filled_up(boxes))
        if shape in seen:  # nothing was compiled
            seconds, timed = seconds + taken, timed + 1
        seen.add(shape)
    times = {
        "proposals": float(stages.require("proposals").notes["seconds_per_image"]),
        "features": float(stages.require(f"features_{pool}").notes["seconds_per_image"]),
        "scores and suppression": seconds / max(timed, 1),
    }
    task = tasks.create(config, Facts(class_names=names))
    score = {way: task.score(jax.tree.map(lambda *x: np.stack(x), *rows[way])) for way in ways}
    return Evaluation(score, times)


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
    found: rcnn.Detections = jax.device_get(
        rcnn.detect(vectors, filled, valid, model, regression, sides, threshold)
    )
    return found
