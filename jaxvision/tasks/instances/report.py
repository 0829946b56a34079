"""What instances show: masks in the colours of their classes, key points, boxes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxvision.data.masks import Crops, paste
from jaxvision.tasks import pictures, skeletons
from jaxvision.tasks.detection import report as detection
from jaxvision.tasks.detection.report import (
    annotated,
    cell,
    could_be_shown,
    figures,
    mistakes,
    sections,
    shown_on_photograph,
    sure,
)
from jaxvision.tasks.detection.task import on_photograph
from jaxvision.tasks.instances.task import points_on_photograph
from jaxvision.tasks.shown import Item, Objects, Shown

__all__ = ["annotated", "cell", "figures", "mistakes", "sections"]

# The ends of the names of what `write` writes for each image.
ENDINGS = (".png", "_instances.png")
_SHOWN = 0.5  # what is sure of a mask's pixel


class _Objects(NamedTuple):
    """Objects of an image, the first on top."""

    boxes: np.ndarray  # [n, 4]
    labels: np.ndarray  # [n]
    texts: Sequence[str]
    masks: Crops | None
    points: np.ndarray | None  # [n, k, 3], those are drawn whose third number is above 0


def picture(task: Any, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
    """Pairs of images: the true objects (if known) on the left, those found on the right.

    Args:
      task: an `Instances`.
      batch: host arrays, with the annotation `instances` if it is known.
      outputs: of `task.predict`.

    Returns:
      uint8 [h, w, 3].
    """

    def found(image: np.ndarray, row: pictures.Row) -> np.ndarray:
        return _drawn(task, image, _found(task, row, (image.shape[0], image.shape[1])))

    def true(image: np.ndarray, row: pictures.Row) -> np.ndarray:
        return _drawn(task, image, _true(task, row, image.shape[:2]))

    return pictures.pairs(batch, outputs, found, true, ("boxes",))


def _found(task: Any, found: Mapping[str, np.ndarray], size: tuple[int, int]) -> _Objects:
    """What is found from the threshold on, in an image of the network's."""
    kept = sure(task, found)
    boxes, labels, scores = (found[name][kept] for name in ("boxes", "labels", "scores"))
    texts = [f"{task.class_names[k]} {score:.2f}" for k, score in zip(labels, scores)]
    masks = paste(found["masks"][kept], boxes, size) if "masks" in found else None
    points = _certain(found["keypoints"][kept]) if "keypoints" in found else None
    return _Objects(boxes, labels, texts, masks, points)


def _true(task: Any, truth: Mapping[str, np.ndarray], size: tuple[int, ...]) -> _Objects:
    kept = truth["box_valid"]
    labels = truth["box_label"][kept]
    masks = points = None
    if "masks" in task.finds and "instance_masks" in truth:
        bits = truth["instance_masks"][kept]
        masks = Crops.of_stack(np.unpackbits(bits, axis=-1, count=size[1]).astype(bool))
    if "keypoints" in task.finds and "keypoints" in truth:
        points = truth["keypoints"][kept]
    texts = [task.class_names[label] for label in labels]
    return _Objects(truth["boxes"][kept], labels, texts, masks, points)


def _certain(points: np.ndarray) -> np.ndarray:
    """All found key points are drawn, whatever the height of their heat maps."""
    return np.concatenate([points[..., :2], np.ones_like(points[..., :1])], -1)


def _drawn(task: Any, image: np.ndarray, objects: _Objects) -> np.ndarray:
    image = pictures.as_colour(image)
    if objects.masks is not None:
        colours = [pictures.class_colour(int(label)) for label in objects.labels]
        crops, corners = objects.masks.crops, objects.masks.corners
        image = pictures.masked(image, crops, corners.tolist(), colours)
    factor = max(1, -(-320 // image.shape[1]))
    image = image.repeat(factor, 0).repeat(factor, 1)
    image = pictures.labelled(image, objects.boxes * factor, objects.texts, objects.labels)
    for points in () if objects.points is None else objects.points[::-1]:
        places, shown = points[:, :2].astype(np.float32) * factor, points[:, 2] > 0
        image = skeletons.drawn(image, places, shown, task.skeleton, task.keypoint_pairs, least=0)
    return image


def _on_photograph(task: Any, prediction: Any) -> tuple[_Objects, np.ndarray]:
    """(objects, scores) from the threshold on, in pixels of the photograph."""
    outputs, size = prediction.outputs, prediction.image.shape[:2]
    kept = sure(task, outputs)
    boxes, labels, scores = shown_on_photograph(task, prediction)
    texts = [f"{task.class_names[k]} {score:.2f}" for k, score in zip(labels, scores)]
    masks = points = None
    if "masks" in outputs:
        grids = outputs["masks"][kept].astype(np.float32)
        # Boxes beyond the photograph's edges keep their masks' proportions.
        whole = on_photograph(prediction.geometry, outputs["boxes"][kept], False)
        masks = paste(grids, whole, size)
    if "keypoints" in outputs:
        points = points_on_photograph(prediction.geometry, outputs["keypoints"][kept])
    return _Objects(boxes, labels, texts, masks, points), scores


def summary(task: Any, prediction: Any, top: int = 5) -> dict[str, Any]:
    """JSON-able: of each object, from the highest score on, `boxes`, `scores` and `classes`, and
    `masks`, COCO's run lengths, or `keypoints`, [x, y, height of the heat map] of each."""
    objects, _ = _on_photograph(task, prediction)
    more: dict[str, Any] = {}
    if objects.masks is not None:
        more["masks"] = objects.masks.to_rle()
    if objects.points is not None:
        more["keypoints"] = np.round(objects.points.astype(float), 2).tolist()
    return {**detection.summary(task, prediction, top), **more}


def write(task: Any, prediction: Any, folder: Path, stem: str) -> None:
    """The photograph with the objects found, as `stem.png`; where they have masks also
    `stem_instances.png`, a palette image with 1 where the first object is, and so on; of those that
    overlap the surer one is seen."""
    objects, _ = _on_photograph(task, prediction)
    shown = objects
    if objects.points is not None:
        shown = objects._replace(points=_certain(objects.points))
    Image.fromarray(_drawn(task, prediction.image, shown)).save(folder / f"{stem}.png")
    if objects.masks is not None:
        index = np.zeros(prediction.image.shape[:2], np.uint8)
        for number in reversed(range(min(len(objects.masks), 255))):
            crop, (top, left) = objects.masks.crops[number], objects.masks.corners[number]
            part = index[top : top + crop.shape[0], left : left + crop.shape[1]]
            part[crop] = number + 1
        numbered = Image.fromarray(index, mode="P")
        numbered.putpalette(pictures.palette(256).ravel().tolist())
        numbered.save(folder / f"{stem}_instances.png")


def shown(task: Any, prediction: Any) -> list[Shown]:
    """The objects, also those below the threshold; see `jaxvision.tasks.shown`."""
    found, scores = _on_photograph(*could_be_shown(task, prediction))
    items = []
    for k, (box, label) in enumerate(zip(found.boxes, found.labels)):
        mask = None
        if found.masks is not None:
            top, left = found.masks.corners[k].tolist()
            mask = (found.masks.crops[k], (top, left))
        points = None if found.points is None else _certain(found.points[k : k + 1])[0]
        colour = pictures.class_colour(int(label))
        score = float(scores[k])
        items.append(Item(task.class_names[label], colour, score, box, mask, points))
    if found.points is None:
        return [Objects(items, task.threshold)]
    count = found.points.shape[1]
    limbs = skeletons.coloured_limbs(count, task.skeleton, task.keypoint_pairs)
    colours = skeletons.point_colours(count, task.keypoint_pairs)
    return [Objects(items, task.threshold, limbs, point_colours=colours)]


def files(task: Any, facts: Any, summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """As of detection, with the `segmentation` or the `keypoints` of each result."""
    found = detection.files(task, facts, summaries)
    results = iter(found["coco.json"])
    for one in summaries:
        for number in range(len(one["boxes"])):
            result = next(results)
            if "masks" in one:
                result["segmentation"] = one["masks"][number]
            if "keypoints" in one:
                # COCO counts pixels from the middle of the first.
                points = ((x - 0.5, y - 0.5, z) for x, y, z in one["keypoints"][number])
                result["keypoints"] = [value for point in points for value in point]
    return found
