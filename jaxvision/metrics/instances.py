"""Average precision of masks and of key points: COCO's numbers, by pycocotools.

Lin et al., Microsoft COCO, 2014, https://arxiv.org/abs/1405.0312. Key points are compared by object
key point similarity (OKS): https://cocodataset.org/#keypoints-eval. A point that is off by d counts
exp(-d^2 / (8 a sigma^2)), where a is the object's area and sigma says how exactly people place it.

All functions take the objects of a whole data set as flat arrays, and run on the host.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxvision.errors import UserError
from jaxvision.metrics.detection import COCO_METRICS, evaluated, summarised

MASK_METRICS = tuple(f"mask_{name}" for name in COCO_METRICS)
# What `COCOeval` summarises of key points, in its order.
KEYPOINT_METRICS = tuple(
    f"keypoint_{name}{part}"
    for name in ("ap", "ar")
    for part in ("", "50", "75", "_medium", "_large")
)
# Of nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles, each left, then right.
COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
_SIGMA = 0.05  # of points of which nothing is known


class TrueMasks(NamedTuple):
    """The masks that are there.

    Attributes:
      image: which image each is in.
      rle: run lengths, compressed, as `pycocotools.mask.encode` gives them.
      label: classes from 0 on.
      crowd: not to be found, nor counted where it is.
      area: pixels, which say whether it is small, medium or large.
    """

    image: Int[np.ndarray, " n"]
    rle: Sequence[Mapping[str, Any]]
    label: Int[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    area: Float[np.ndarray, " n"]


class FoundMasks(NamedTuple):
    """The masks that a network finds; see `TrueMasks`."""

    image: Int[np.ndarray, " m"]
    rle: Sequence[Mapping[str, Any]]
    label: Int[np.ndarray, " m"]
    score: Float[np.ndarray, " m"]


class TruePoints(NamedTuple):
    """The key points that are there.

    Attributes:
      image: which image each object is in.
      boxes: (x0, y0, x1, y1) of the objects, around which an object without points may be found.
      keypoints: (x, y, labelled); what is not labelled is not looked at.
      label: classes from 0 on.
      crowd: not to be found, nor counted where it is; alike an object without a labelled point.
      area: pixels, by which distances are measured.
    """

    image: Int[np.ndarray, " n"]
    boxes: Float[np.ndarray, "n 4"]
    keypoints: Float[np.ndarray, "n k 3"]
    label: Int[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    area: Float[np.ndarray, " n"]


class FoundPoints(NamedTuple):
    """The key points (x, y) that a network finds; see `TruePoints`."""

    image: Int[np.ndarray, " m"]
    keypoints: Shaped[np.ndarray, "m k 2"]
    label: Int[np.ndarray, " m"]
    score: Float[np.ndarray, " m"]


def mask_scores(
    found: FoundMasks, truth: TrueMasks, images: Sequence[int], class_names: Sequence[str]
) -> dict[str, float]:
    """The twelve numbers of `MASK_METRICS`, and `mask_ap/<class>`; NaN where there is nothing.

    Args:
      found: at most 100 masks of an image and class count, those of highest score.
      truth: crowds may be found any number of times, and need not be.
      images: all that were looked at, with objects or without.
      class_names: of all classes; those without an object are left out of the means.
    """
    from pycocotools import mask as tools

    there = _annotations(
        truth,
        segmentation=truth.rle,
        area=truth.area.tolist(),
        iscrowd=truth.crowd.astype(int).tolist(),
    )
    seen = _annotations(
        found,
        segmentation=found.rle,
        area=[float(tools.area(one)) for one in found.rle],
        iscrowd=[0] * len(found.rle),
        score=found.score.tolist(),
    )
    evaluation = evaluated("segm", there, seen, images, class_names)
    return summarised(evaluation, MASK_METRICS, class_names, "mask_")


def keypoint_scores(
    found: FoundPoints,
    truth: TruePoints,
    images: Sequence[int],
    class_names: Sequence[str],
    sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
    """The ten numbers of `KEYPOINT_METRICS`, and `keypoint_ap/<class>`; NaN where nothing is.

    Args:
      found: at most 20 objects of an image and class count, those of highest score.
      truth: what is there.
      images: all that were looked at, with objects or without.
      class_names: of all classes; those without an object are left out of the means.
      sigmas: of each point; None: COCO's where there are 17, else 0.05.

    Raises:
      UserError: found and true points or the sigmas differ in number.
    """
    points = truth.keypoints.shape[1]
    if sigmas is None:
        sigmas = COCO_SIGMAS if points == len(COCO_SIGMAS) else (_SIGMA,) * points
    if not len(sigmas) == points == found.keypoints.shape[1]:
        raise UserError(
            f"There are {points} key points of an object, {found.keypoints.shape[1]} found ones, "
            f"and {len(sigmas)} sigmas; expected as many of each."
        )
    low, high = truth.boxes[:, :2].astype(np.float64), truth.boxes[:, 2:].astype(np.float64)
    labelled = truth.keypoints[..., 2] > 0
    there = _annotations(
        truth,
        keypoints=truth.keypoints.reshape(len(low), 3 * points).tolist(),
        num_keypoints=labelled.sum(1).tolist(),
        bbox=np.concatenate([low, high - low], -1).tolist(),
        area=truth.area.tolist(),
        iscrowd=truth.crowd.astype(int).tolist(),
    )
    places = found.keypoints.astype(np.float64)
    sides = np.ptp(places, axis=1) if len(places) else np.zeros((0, 2))
    triples = np.concatenate([places, np.ones_like(places[..., :1])], -1)
    seen = _annotations(
        found,
        keypoints=triples.reshape(len(places), 3 * points).tolist(),
        area=sides.prod(-1).tolist(),
        iscrowd=[0] * len(places),
        score=found.score.tolist(),
    )
    evaluation = evaluated("keypoints", there, seen, images, class_names, sigmas)
    return summarised(evaluation, KEYPOINT_METRICS, class_names, "keypoint_")


def _annotations(objects: Any, **columns: Sequence[Any]) -> list[dict[str, Any]]:
    """One for each object, as COCO's files have them."""
    columns = {"image_id": objects.image.tolist(), "category_id": objects.label.tolist(), **columns}
    rows = zip(*columns.values(), strict=True)
    return [
        {"id": number, **dict(zip(columns, row, strict=True))}
        for number, row in enumerate(rows, start=1)
    ]
