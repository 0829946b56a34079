"""Average precision of boxes: COCO's twelve numbers, by pycocotools, and those of PASCAL VOC.

Lin et al., Microsoft COCO, 2014, https://arxiv.org/abs/1405.0312. Everingham et al., The PASCAL
Visual Object Classes Challenge, 2010, https://doi.org/10.1007/s11263-009-0275-4.

Boxes are (x0, y0, x1, y1). All functions take the objects of a whole data set as flat arrays, and
run on the host.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

# What `COCOeval` summarises, in its order.
COCO_METRICS = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)


class Truth(NamedTuple):
    """The objects that are there.

    Attributes:
      image: which image each is in.
      boxes: in pixels.
      label: classes from 0 on.
      crowd: not to be found, nor counted where it is; VOC calls such objects difficult.
      area: pixels, which say whether it is small, medium or large.
    """

    image: Int[np.ndarray, " n"]
    boxes: Float[np.ndarray, "n 4"]
    label: Int[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    area: Float[np.ndarray, " n"]


class Found(NamedTuple):
    """The objects that a network finds; see `Truth`."""

    image: Int[np.ndarray, " m"]
    boxes: Float[np.ndarray, "m 4"]
    label: Int[np.ndarray, " m"]
    score: Float[np.ndarray, " m"]


def coco_scores(
    found: Found,
    truth: Truth,
    images: Sequence[int],
    class_names: Sequence[str],
    overlaps: Sequence[Float[np.ndarray, "_ _"]] | None = None,
    areas: Float[np.ndarray, " m"] | None = None,
) -> dict[str, float]:
    """The twelve numbers of `COCO_METRICS`, and `ap/<class>`; NaN where there is nothing to find.

    Args:
      found: at most 100 objects of an image and class count, those of highest score.
      truth: crowds may be found any number of times, and need not be.
      images: all that were looked at, with objects or without.
      class_names: of all classes; those without an object are left out of the means.
      overlaps: of each image, of what is found there with what is there, each in the order of
        `found` and `truth`; None: of the boxes.
      areas: of what is found, in pixels; None: of the boxes.
    """
    there, seen = _annotations(truth), _annotations(found)
    if areas is not None:
        for one, area in zip(seen, areas.tolist(), strict=True):
            one["area"] = area
    evaluation = evaluated("bbox", there, seen, images, class_names, overlaps=overlaps)
    return summarised(evaluation, COCO_METRICS, class_names)


def evaluated(
    kind: str,
    there: list[dict[str, Any]],
    seen: list[dict[str, Any]],
    images: Sequence[int],
    class_names: Sequence[str],
    sigmas: Sequence[float] | None = None,
    overlaps: Sequence[Float[np.ndarray, "_ _"]] | None = None,
) -> Any:
    """pycocotools' `COCOeval` of annotations, summarised.

    Args:
      kind: "bbox", "segm" or "keypoints".
      there: what is there, as the annotations of COCO's files; categories are class indices.
      seen: what is found, with areas.
      images: all that were looked at.
      class_names: of all classes.
      sigmas: of key points.
      overlaps: of each image, see `coco_scores`.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        sides = []
        # It asks for the images' sizes, and needs them only to draw polygons.
        frame = {
            "images": [{"id": int(image), "height": 0, "width": 0} for image in images],
            "categories": [{"id": place, "name": name} for place, name in enumerate(class_names)],
        }
        for annotations in (there, seen):
            sides.append(COCO())
            sides[-1].dataset = {**frame, "annotations": annotations}
            sides[-1].createIndex()
        evaluation = COCOeval(*sides, kind)
        if overlaps is not None:
            evaluation.computeIoU = _given(evaluation, dict(zip(images, overlaps, strict=True)))
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.asarray(sigmas, np.float64)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _given(evaluation: Any, overlaps: Mapping[int, np.ndarray]) -> Any:
    """What takes the place of `COCOeval.computeIoU`: overlaps that are known already."""
    place: dict[int, int] = {}  # of each annotation among those of its image
    for side in (evaluation.cocoDt, evaluation.cocoGt):
        for listed in side.imgToAnns.values():
            for index, one in enumerate(listed):
                place[id(one)] = index

    def compute(image: Any, category: Any) -> Any:
        there, seen = evaluation._gts[image, category], evaluation._dts[image, category]
        if not there and not seen:
            return []
        order = np.argsort([-one["score"] for one in seen], kind="mergesort")
        rows = [place[id(seen[k])] for k in order[: evaluation.params.maxDets[-1]]]
        return overlaps[image][np.ix_(rows, [place[id(one)] for one in there])]

    return compute


def summarised(
    evaluation: Any, names: Sequence[str], class_names: Sequence[str], prefix: str = ""
) -> dict[str, float]:
    """The numbers of `evaluated` by these names, and `<prefix>ap/<class>`; NaN of nothing."""
    scores = dict(zip(names, evaluation.stats, strict=True))
    precision = evaluation.eval["precision"][..., 0, -1]  # [overlap, recall, class], of all sizes
    for number, name in enumerate(class_names):
        scores[f"{prefix}ap/{name}"] = precision[..., number].mean()
    return {name: float(value) if value > -1 else float("nan") for name, value in scores.items()}


def _annotations(objects: Found | Truth) -> list[dict[str, Any]]:
    corners = objects.boxes.astype(np.float64)
    sides = corners[:, 2:] - corners[:, :2]
    boxes = np.concatenate([corners[:, :2], sides], -1).tolist()
    made = [
        {"id": number, "image_id": image, "category_id": label, "bbox": box}
        for number, (image, label, box) in enumerate(
            zip(objects.image.tolist(), objects.label.tolist(), boxes), start=1
        )
    ]
    rest: dict[str, np.ndarray]
    if isinstance(objects, Truth):
        rest = {"area": objects.area, "iscrowd": objects.crowd.astype(int)}
    else:
        nowhere = np.zeros(len(made), int)
        rest = {"area": sides.prod(-1), "iscrowd": nowhere, "score": objects.score}
    for key, values in rest.items():
        for one, value in zip(made, values.tolist()):
            one[key] = value
    return made


class Ranked(NamedTuple):
    """What is found of one class, from the highest score on.

    Attributes:
      score: of each.
      right: whether it is the first to find its object; what finds a crowd is not listed.
      objects: that are to be found.
    """

    score: Float[np.ndarray, " m"]
    right: Bool[np.ndarray, " m"]
    objects: int

    @property
    def precision(self) -> Float[np.ndarray, " m"]:
        """Of what is found up to each."""
        return np.cumsum(self.right) / np.arange(1, len(self.right) + 1)

    @property
    def recall(self) -> Float[np.ndarray, " m"]:
        """The share of the objects that is found up to each."""
        return np.cumsum(self.right) / max(self.objects, 1)


def rank(found: Found, truth: Truth, label: int, overlap: float = 0.5) -> Ranked:
    """Which of what is found of a class is right, by the rules of VOC's development kit.

    One after another, from the highest score on, looks at the object of its class that it overlaps
    most: it is right if that overlap is at least `overlap` and no other has found the object.

    Args:
      label: the class.
      overlap: intersection over union.
    """
    mine, chosen = truth.label == label, np.flatnonzero(found.label == label)
    chosen = chosen[np.argsort(-found.score[chosen], kind="stable")]
    by_image: dict[int, list[int]] = {}
    for index in np.flatnonzero(mine).tolist():
        by_image.setdefault(int(truth.image[index]), []).append(index)
    taken = np.zeros(len(mine), bool)
    right, listed = np.zeros(len(chosen), bool), np.ones(len(chosen), bool)
    for place, index in enumerate(chosen.tolist()):
        near = np.array(by_image.get(int(found.image[index]), ()), int)
        if not len(near):
            continue
        shares = overlaps(found.boxes[index], truth.boxes[near])
        best = near[shares.argmax()]
        if shares.max() < overlap:
            continue
        listed[place] = not truth.crowd[best]
        right[place] = not taken[best]
        taken[best] = True
    count = int((mine & ~truth.crowd).sum())
    return Ranked(found.score[chosen][listed], right[listed], count)


def overlaps(
    boxes: Shaped[np.ndarray, "*b 4"], others: Shaped[np.ndarray, "n 4"]
) -> Float[np.ndarray, "*b n"]:
    """Intersection over union of every box with every other one, on the host, in float64."""
    boxes, others = boxes.astype(np.float64)[..., None, :], others.astype(np.float64)
    low = np.maximum(boxes[..., :2], others[:, :2])
    high = np.minimum(boxes[..., 2:], others[:, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(-1) for each in (boxes, others)]
    union = areas[0] + areas[1] - shared
    return shared / np.where(union > 0, union, 1)


def proposal_recall(
    proposals: Sequence[Shaped[np.ndarray, "_ 4"]],
    objects: Sequence[Shaped[np.ndarray, "_ 4"]],
    counts: Sequence[int],
    overlap: float = 0.5,
) -> dict[int, float]:
    """The share of the objects that one of an image's first proposals overlaps enough.

    Args:
      proposals: of each image, the best first.
      objects: of each image.
      counts: how many proposals of an image are looked at.
      overlap: the least intersection over union.

    Returns:
      The recall of each count; NaN where there is no object.
    """
    firsts = [np.zeros(0)]  # for each object, how many proposals it takes
    for found, there in zip(proposals, objects, strict=True):
        enough = overlaps(there, found) >= overlap
        firsts.append(np.where(enough.any(1), 1 + enough.argmax(1), np.inf) if len(found)
                      else np.full(len(there), np.inf))  # fmt: skip
    first = np.concatenate(firsts)
    return {count: float((first <= count).mean()) if len(first) else float("nan")
            for count in counts}  # fmt: skip


def voc_average_precision(ranked: Ranked, year: int = 2012) -> float:
    """The area below the curve of precision over recall; NaN where there is nothing to find.

    Args:
      ranked: see `rank`.
      year: 2007 is the mean over eleven recalls, later ones the whole area.
    """
    if not ranked.objects:
        return float("nan")
    # The precision at a recall is the highest at this recall or a higher one.
    precision = np.maximum.accumulate(np.append(ranked.precision, 0.0)[::-1])[::-1]
    if year == 2007:
        places = np.searchsorted(ranked.recall, np.arange(11) / 10 - 1e-12)
        return float(precision[places].mean())
    return float((np.diff(ranked.recall, prepend=0) * precision[:-1]).sum())


def voc_scores(
    found: Found, truth: Truth, class_names: Sequence[str], year: int = 2012
) -> dict[str, float]:
    """`ap_voc<year>/<class>`, and `map_voc<year>`, their mean over the classes that occur."""
    each = [
        voc_average_precision(rank(found, truth, label), year) for label in range(len(class_names))
    ]
    known = [ap for ap in each if not np.isnan(ap)]
    mean = float(np.mean(known)) if known else float("nan")
    return {
        f"map_voc{year}": mean,
        **{f"ap_voc{year}/{name}": ap for name, ap in zip(class_names, each)},
    }


def confusion(
    found: Found, truth: Truth, num_classes: int, threshold: float = 0.5, overlap: float = 0.5
) -> Int[np.ndarray, "k1 k1"]:
    """Objects by true (row) and found (column) class; the last ones are nothing.

    Of what is found with a score of at least `threshold`, pairs with an overlap of at least
    `overlap` are taken from the largest on, each object once. What only finds crowds is left out.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    sure = found.score >= threshold
    for image in np.union1d(truth.image, found.image[sure]):
        there = np.flatnonzero(truth.image == image)
        seen = np.flatnonzero(sure & (found.image == image))
        shares = overlaps(found.boxes[seen], truth.boxes[there])
        left_seen, left_there = set(range(len(seen))), set(range(len(there)))
        for flat in np.argsort(-shares, axis=None, kind="stable").tolist():
            one, other = divmod(flat, len(there))
            if shares[one, other] < overlap:
                break
            if one in left_seen and other in left_there:
                left_seen.discard(one)
                if truth.crowd[there[other]]:
                    continue
                left_there.discard(other)
                matrix[truth.label[there[other]], found.label[seen[one]]] += 1
        for one in left_seen:
            matrix[num_classes, found.label[seen[one]]] += 1
        for other in left_there:
            if not truth.crowd[there[other]]:
                matrix[truth.label[there[other]], num_classes] += 1
    return matrix
