"""What is learnt of the features of windows: SVMs, with hard negatives, and how windows move."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from jaxvision.classical import linear
from jaxvision.classical.linear import Linear
from jaxvision.classical.rcnn.windows import Windows
from jaxvision.errors import UserError
from jaxvision.ops.boxes import encode_deltas

NORM = 20.0  # mean length of features, as the authors' code has it: what C and lambda are meant for

_NEGATIVE = 0.3  # overlap with a class below which a window is none of it
_HARD, _EASY = -1.0, -1.2  # scores from which negatives are taken, and below which they are dropped
_BIAS = 10.0  # `intercept_scaling`, as the authors' -B 10


class Mining(NamedTuple):
    """What `fit_svms` found.

    Attributes:
      model: one SVM a class, of features as they are given.
      sizes: of the samples that each fit was made of.
      added: hard negatives that were found after each.
    """

    model: Linear
    sizes: tuple[int, ...]
    added: tuple[int, ...]


def fit_svms(
    features: Callable[[int], Float[np.ndarray, "_ d"]],
    windows: Sequence[Windows],
    *,
    c: float = 1e-3,
    rounds: int = 3,
    first: int = 10,
    most: int = 50,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Mining:
    """Linear SVMs of all classes, whose negatives are mined: those that the last ones got wrong.

    Positives of a class are its objects; negatives windows that overlap none of it by 0.3. Each
    round fits on what there is, adds the negatives of a score above -1, and drops those below -1.2.
    The loss is the squared hinge of `linear.fit`. All classes share their samples, each with the
    weight 0 for what is neither, so one that is hard for a class is another's negative too.

    Args:
      features: of the windows of an image, by its number.
      windows: of each image.
      c: weight of the data, for features of mean length `NORM`, to which they are scaled.
      rounds: of mining, unless nothing more is found.
      first: negatives of an image to begin with.
      most: negatives of an image that a round adds, those of highest score.
      tolerance: see `linear.fit`.
      seed: of what it begins with.

    Raises:
      UserError: there is no object.
    """
    rng = np.random.default_rng(seed)
    scale = unit_scale(features(n) for n in range(len(windows)))
    kept: list[set[int]] = []
    for one in windows:
        free = np.flatnonzero(one.truth < 0)
        chosen = rng.permutation(free)[:first]
        kept.append({*np.flatnonzero(one.truth >= 0).tolist(), *chosen.tolist()})
    if not any((one.truth >= 0).any() for one in windows):
        raise UserError("There is no object to learn from.")
    model = _fit(features, windows, kept, c, scale, tolerance, None)
    sizes, added = [sum(map(len, kept))], []
    for _ in range(rounds):
        found = 0
        for n, one in enumerate(windows):
            score = features(n) @ np.asarray(model.weight) + np.asarray(model.bias)
            worst = np.where(_weights(one) * (one.truth[:, None] < 0) > 0, score, -np.inf).max(1)
            easy = {r for r in kept[n] if one.truth[r] < 0 and worst[r] < _EASY}
            order = np.argsort(-worst, kind="stable")
            hard = [r for r in order[worst[order] > _HARD].tolist() if r not in kept[n]][:most]
            kept[n] = (kept[n] - easy) | set(hard)
            found += len(hard)
        added.append(found)
        if not found:
            break
        model = _fit(features, windows, kept, c, scale, tolerance, model)
        sizes.append(sum(map(len, kept)))
    return Mining(model, tuple(sizes), tuple(added))


def _weights(one: Windows) -> np.ndarray:
    """1 where a window is a sample of a class."""
    own = one.truth[:, None] == np.arange(one.overlap.shape[1])
    return (own | (one.overlap < _NEGATIVE)).astype(np.float32)


def _fit(
    features: Callable[[int], np.ndarray],
    windows: Sequence[Windows],
    kept: Sequence[set[int]],
    c: float,
    scale: float,
    tolerance: float,
    start: Linear | None,
) -> Linear:
    rows = [sorted(chosen) for chosen in kept]
    truth = np.concatenate([one.truth[chosen] for one, chosen in zip(windows, rows)])
    weights = np.concatenate([_weights(one)[chosen] for one, chosen in zip(windows, rows)])
    missing = -len(truth) % (1 << max(8, len(truth).bit_length() - 2))  # so few shapes are compiled
    x = np.zeros((len(truth) + missing, features(0).shape[1]), np.float32)
    end = 0
    for n, chosen in enumerate(rows):  # in place: it may take most of the memory
        begin, end = end, end + len(chosen)
        x[begin:end] = features(n)[chosen] * np.float32(scale)
    if start is not None:
        start = Linear(start.weight / scale, start.bias)
    found = linear.fit(
        x,
        np.pad(truth, (0, missing), constant_values=-1),
        weights.shape[1],
        "squared_hinge",
        c=c,
        intercept_scaling=_BIAS,
        tolerance=tolerance,
        weights=np.pad(weights, ((0, missing), (0, 0))),
        start=start,
    ).model
    return Linear(found.weight * scale, found.bias)


def unit_scale(features: Iterator[Float[np.ndarray, "_ d"]]) -> float:
    """What makes the mean length of features `NORM`."""
    lengths = np.concatenate([np.linalg.norm(f.astype(np.float32), axis=1) for f in features])
    return float(NORM / max(lengths.mean(), 1e-12))


# -- boxes ----------------------------------------------------------------------------------------


class Regression(NamedTuple):
    """Linear maps from features to how a window is moved, one a class; see `encode_deltas`.

    A class that had no window to learn from moves nothing.
    """

    weight: Float[np.ndarray, "k d 4"]
    bias: Float[np.ndarray, "k 4"]


def ridge(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n m"], penalty: float | int
) -> tuple[Float[np.ndarray, "d m"], Float[np.ndarray, " m"]]:
    """(weight, bias) of the least |y - x weight - bias|^2 + penalty |weight|^2, in float64.

    Equal to `sklearn.linear_model.Ridge(alpha=penalty)`.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    means = x.mean(0), y.mean(0)
    x, y = x - means[0], y - means[1]
    if len(x) < x.shape[1]:
        weight = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
    else:
        weight = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return weight, means[1] - means[0] @ weight


def fit_boxes(
    features: Callable[[int], Float[np.ndarray, "_ d"]],
    windows: Sequence[Windows],
    *,
    penalty: float | int = 1000,
    scale: float | None = None,
) -> Regression:
    """How windows move onto objects, by class (appendix C of R-CNN).

    A window learns from the object that it overlaps most, if by 0.6.

    Args:
      features: of the windows of an image, by its number.
      windows: of each image.
      penalty: lambda, for features of mean length `NORM`, to which they are scaled.
      scale: by which they are scaled instead.

    Raises:
      UserError: no window overlaps an object by 0.6.
    """
    if scale is None:
        scale = unit_scale(features(n) for n in range(len(windows)))
    count = windows[0].overlap.shape[1]
    xs: list[list[np.ndarray]] = [[] for _ in range(count)]
    ys: list[list[np.ndarray]] = [[] for _ in range(count)]
    for n, one in enumerate(windows):
        chosen = one.regressed
        if not len(chosen):
            continue
        near, x = one.nearest[chosen], features(n)[chosen].astype(np.float32) * scale
        y = np.asarray(_encode(one.objects.boxes[near], one.boxes[chosen]))
        for k in np.unique(one.objects.label[near]):
            mine = one.objects.label[near] == k
            xs[k].append(x[mine])
            ys[k].append(y[mine])
    if not any(xs):
        raise UserError("No window overlaps an object by 0.6; there is nothing to learn.")
    depth = next(x[0].shape[1] for x in xs if x)
    weight, bias = np.zeros((count, depth, 4), np.float32), np.zeros((count, 4), np.float32)
    for k, (samples, moves) in enumerate(zip(xs, ys)):
        if samples:
            found = ridge(np.concatenate(samples), np.concatenate(moves), penalty)
            weight[k], bias[k] = found[0] * scale, found[1]
    return Regression(weight, bias)


def _encode(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """`encode_deltas` of any number of boxes, with few shapes to compile."""
    missing = (-len(boxes) % 64, 0)
    padded = [np.pad(b.astype(np.float32), (missing[::-1], (0, 0))) for b in (boxes, windows)]
    return np.asarray(jax.jit(encode_deltas)(*padded))[: len(boxes)]
