"""Which mistakes a detector makes, and what each kind costs of its average precision: TIDE.

Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, 2020,
https://arxiv.org/abs/2008.08115. At an overlap of 0.5, where what overlaps nothing by more than 0.1
is of the background. A kind's cost is the average precision that would be gained if an oracle put
right all mistakes of that kind and left the others, so costs do not add up.

Here, as in `jaxvision.metrics.detection`, objects of a whole data set are flat arrays on the host.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxvision.metrics.detection import Found, Truth, overlaps

RIGHT, IGNORED = "right", "ignored"
KINDS = ("class", "location", "class and location", "duplicate", "background", "missed")
_CLASS, _LOCATION, _BOTH, _DUPLICATE, _BACKGROUND, _MISSED = KINDS


class Errors(NamedTuple):
    """What is wrong with each object that is found, and which are not.

    Attributes:
      kind: of each that is found: one of `KINDS`, `RIGHT`, or `IGNORED` where it finds a crowd.
      object: that each finds, or would find if it were put right; -1 of none.
      matched: which of those that are there are found.
      missed: which neither are found nor would be if class or location were put right.
    """

    kind: np.ndarray
    object: Int[np.ndarray, " m"]
    matched: Bool[np.ndarray, " n"]
    missed: Bool[np.ndarray, " n"]


def errors(found: Found, truth: Truth, overlap: float = 0.5, background: float = 0.1) -> Errors:
    """The kind of each mistake.

    Args:
      found, truth: the objects.
      overlap: intersection over union from which an object is found.
      background: up to which nothing is near.
    """
    kind = np.full(len(found.score), _BACKGROUND, object)
    target = np.full(len(found.score), -1)
    matched = np.zeros(len(truth.label), bool)
    for image in np.union1d(found.image, truth.image):
        seen = np.flatnonzero(found.image == image)
        seen = seen[np.argsort(-found.score[seen], kind="stable")]
        here = np.flatnonzero(truth.image == image)
        there, crowds = here[~truth.crowd[here]], here[truth.crowd[here]]
        shares = overlaps(found.boxes[seen], truth.boxes[there])
        same = found.label[seen][:, None] == truth.label[there]
        for place, one in enumerate(seen.tolist()):
            free = np.where(same[place] & ~matched[there], shares[place], -1)
            if free.max(initial=-1) >= overlap:
                best = there[free.argmax()]
                kind[one], target[one], matched[best] = RIGHT, best, True
        for place, one in enumerate(seen.tolist()):
            if kind[one] == RIGHT:
                continue
            if _in_crowd(found, truth, one, crowds, overlap):
                kind[one] = IGNORED
                continue
            mine = np.where(same[place], shares[place], -1)
            others = np.where(same[place], -1, shares[place])
            kind[one], best_place = _kind(mine, others, overlap, background)
            if best_place >= 0:
                target[one] = there[best_place]
    correctable = np.zeros(len(matched), bool)
    hopeful = np.isin(kind, (_CLASS, _LOCATION))
    correctable[target[hopeful]] = True
    return Errors(kind, target, matched, ~matched & ~correctable & ~truth.crowd)


def _in_crowd(found: Found, truth: Truth, one: int, crowds: np.ndarray, overlap: float) -> bool:
    """Whether so much of a box lies in a crowd of its class."""
    own = crowds[truth.label[crowds] == found.label[one]]
    box, others = found.boxes[one].astype(np.float64), truth.boxes[own].astype(np.float64)
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    area = (box[2:] - box[:2]).prod()
    return bool(area > 0 and (shared / area >= overlap).any())


def _kind(
    mine: np.ndarray, others: np.ndarray, overlap: float, background: float
) -> tuple[str, int]:
    """(kind, place of the object that it is about, -1 of none) of what is found and wrong.

    Args:
      mine: overlaps with the objects of its class, -1 of others.
      others: overlaps with objects of other classes, alike.
    """
    own, other = mine.max(initial=-1), others.max(initial=-1)
    if background <= own < overlap:
        return _LOCATION, int(mine.argmax())
    if other >= overlap:
        return _CLASS, int(others.argmax())
    if own >= overlap:
        return _DUPLICATE, int(mine.argmax())
    if other >= background:
        return _BOTH, -1
    return _BACKGROUND, -1


def costs(found: Found, truth: Truth, num_classes: int) -> dict[str, float]:
    """What each of `KINDS` costs of the mean average precision at an overlap of 0.5.

    Args:
      found, truth: the objects.
      num_classes: the mean runs over those with an object.

    Returns:
      By kind, from 0 to 1; and `ap50`, that of what is found.
    """
    what = errors(found, truth)
    objects = np.bincount(truth.label[~truth.crowd], minlength=num_classes)
    kept, right = what.kind != IGNORED, what.kind == RIGHT
    base = _mean_ap(found.score, found.label, right, kept, objects)
    gains = {}
    for kind in KINDS[:-1]:
        fixed = _fixed(found, truth, what, kind)
        gains[kind] = _mean_ap(found.score, *fixed, objects) - base
    without = objects - np.bincount(truth.label[what.missed], minlength=num_classes)
    gains[_MISSED] = _mean_ap(found.score, found.label, right, kept, without, objects) - base
    return {"ap50": base, **gains}


def _fixed(
    found: Found, truth: Truth, what: Errors, kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(label, right, kept) of what is found once the mistakes of one kind are put right.

    Of several that would find one object the surest does; what finds one that is found already, or
    none, goes.
    """
    label, right = found.label.copy(), what.kind == RIGHT
    kept = what.kind != IGNORED
    mine = np.flatnonzero(what.kind == kind)
    taken = what.matched.copy()
    for one in mine[np.argsort(-found.score[mine], kind="stable")]:
        target = what.object[one]
        if kind not in (_CLASS, _LOCATION) or taken[target]:
            kept[one] = False
            continue
        label[one], right[one], taken[target] = truth.label[target], True, True
    return label, right, kept


def _mean_ap(
    score: np.ndarray,
    label: np.ndarray,
    right: np.ndarray,
    kept: np.ndarray,
    objects: np.ndarray,
    occurring: np.ndarray | None = None,
) -> float:
    """COCO's: precision at 101 recalls, the mean over the classes that occur; NaN if none does."""
    each = []
    for k in np.flatnonzero(objects if occurring is None else occurring):
        if not objects[k]:  # all that there were would be missed
            each.append(1.0)
            continue
        mine = np.flatnonzero(kept & (label == k))
        mine = mine[np.argsort(-score[mine], kind="stable")]
        hits = np.cumsum(right[mine])
        precision = hits / np.arange(1, len(mine) + 1)
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        places = np.searchsorted(hits / objects[k], np.linspace(0, 1, 101), side="left")
        each.append(float(envelope[np.minimum(places, len(mine))].mean()))
    return float(np.mean(each)) if each else float("nan")


def counts(what: Errors) -> Mapping[str, int]:
    """How many mistakes there are of each of `KINDS`."""
    found = {kind: int((what.kind == kind).sum()) for kind in KINDS[:-1]}
    return {**found, _MISSED: int(what.missed.sum())}
