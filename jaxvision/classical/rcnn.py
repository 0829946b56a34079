"""R-CNN and SPP-net: what they do with proposals, beside the network.

Girshick et al., "Rich feature hierarchies for accurate object detection and semantic segmentation",
2014, https://arxiv.org/abs/1311.2524: windows around proposals are warped to one size, a network
describes each, linear SVMs score them, and a regression moves them. He et al., "Spatial Pyramid
Pooling in Deep Convolutional Networks", 2014, https://arxiv.org/abs/1406.4729: the network sees the
image once, and a pyramid of maxima describes each proposal.

Boxes are (x0, y0, x1, y1) in pixels. `jaxvision.commands.rcnn` puts it together.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxvision.classical import linear
from jaxvision.classical.linear import Linear
from jaxvision.errors import UserError
from jaxvision.metrics.detection import overlaps
from jaxvision.ops.boxes import decode_deltas, encode_deltas
from jaxvision.ops.roi import roi_align, roi_pool
from jaxvision.ops.suppression import batched_nms

NORM = 20.0  # mean length of features, as the authors' code has it: what C and lambda are meant for
PYRAMID = (6, 3, 2, 1)

_NEGATIVE = 0.3  # overlap with a class below which a window is none of it
_POSITIVE = 0.5  # in fine-tuning
_REGRESSED = 0.6  # overlap from which a window learns to move
_HARD, _EASY = -1.0, -1.2  # scores from which negatives are taken, and below which they are dropped
_CANDIDATES = 2000  # of an image that take part in suppression
_BIAS = 10.0  # `intercept_scaling`, as the authors' -B 10


# -- windows --------------------------------------------------------------------------------------


def with_context(
    boxes: Float[Array | np.ndarray, "*b 4"], size: int, padding: int = 16
) -> Float[Array, "*b 4"]:
    """Boxes so much larger that, warped to `size` pixels, `padding` of them are around the object.

    Raises:
      UserError: no pixel of the object would be left.
    """
    if not 0 <= 2 * padding < size:
        raise UserError(f"Padding of {padding} pixels leaves nothing of a window of {size}.")
    boxes = jnp.asarray(boxes, jnp.float32)
    margin = (boxes[..., 2:] - boxes[..., :2]) * (padding / (size - 2 * padding))
    return jnp.concatenate([boxes[..., :2] - margin, boxes[..., 2:] + margin], -1)


def warp(
    images: Float[Array, "b h w c"], boxes: Float[Array, "b n 4"], size: int, padding: int = 16
) -> Float[Array, "b n s s c"]:
    """The windows around boxes of images, warped to squares whatever their aspect (appendix A).

    Samples are bilinear, without a blur first, as the authors' are. What is outside of the image is
    0: the mean, if the image is normalised.
    """
    windows = with_context(boxes, size, padding)
    return roi_align(images, windows, size, sampling_ratio=1, aligned=True)


def spatial_pyramid(
    features: Float[Array, "h w c"],
    boxes: Float[Array, "n 4"],
    stride: float | int,
    levels: Sequence[int] = PYRAMID,
) -> Float[Array, "n f"]:
    """Maxima of a map in l x l bins of each box, for each l of the levels, side by side.

    A box begins at cell floor(x0 / stride) + 1 and ends at ceil(x1 / stride) - 1 (appendix A of the
    paper); one without a cell of its own has that of its middle.

    Args:
      features: the map.
      boxes: in pixels of the image that the map is of.
      stride: pixels of a cell.
      levels: of the pyramid.
    """
    begin, end = jnp.floor(boxes[:, :2] / stride) + 1, jnp.ceil(boxes[:, 2:] / stride) - 1
    middle = jnp.floor((boxes[:, :2] + boxes[:, 2:]) / 2 / stride)
    empty = end < begin
    begin, end = jnp.where(empty, middle, begin), jnp.where(empty, middle, end)
    most = jnp.array(features.shape[1::-1]) - 1
    cells = jnp.concatenate([jnp.clip(begin, 0, most), jnp.clip(end, 0, most)], -1)[None]
    parts = [roi_pool(features[None], cells, level)[0] for level in levels]
    return jnp.concatenate([part.reshape(len(boxes), -1) for part in parts], -1)


# -- which windows are what -----------------------------------------------------------------------


class Objects(NamedTuple):
    """The objects of an image; crowds are neither learnt nor a background."""

    boxes: Float[np.ndarray, "n 4"]
    label: Int[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]


class Windows(NamedTuple):
    """What an image's proposals are, for learning; its objects are windows too, after them.

    Attributes:
      boxes: of the windows.
      truth: the class of a window that is an object, else -1.
      overlap: the largest with an object of each class.
      nearest: the object (without crowds) that a window overlaps most; -1 where there is none.
      objects: of the image.
    """

    boxes: Float[np.ndarray, "n 4"]
    truth: Int[np.ndarray, " n"]
    overlap: Float[np.ndarray, "n k"]
    nearest: Int[np.ndarray, " n"]
    objects: Objects

    @property
    def regressed(self) -> Int[np.ndarray, " m"]:
        """The windows that learn to move onto their nearest objects."""
        if not len(self.objects.boxes):
            return np.zeros(0, int)
        near = overlaps(self.boxes, self.objects.boxes)[np.arange(len(self.boxes)), self.nearest]
        return np.flatnonzero((near >= _REGRESSED) & (self.nearest >= 0))


def windows_of(proposals: Float[np.ndarray, "n 4"], objects: Objects, num_classes: int) -> Windows:
    """What the proposals of an image are, and its objects behind them."""
    mine = ~objects.crowd
    boxes = np.concatenate([proposals, objects.boxes[mine]]).astype(np.float32)
    truth = np.concatenate([np.full(len(proposals), -1), objects.label[mine]]).astype(np.int32)
    shares = overlaps(boxes, objects.boxes)
    each = [shares[:, objects.label == k].max(1, initial=0) for k in range(num_classes)]
    overlap = np.stack(each, -1).astype(np.float32)
    real = np.where(mine, shares, -1.0)
    if mine.any():
        nearest = np.where(real.max(1) > 0, real.argmax(1), -1)
    else:
        nearest = np.full(len(boxes), -1)
    return Windows(boxes, truth, overlap, nearest.astype(np.int32), objects)


class Sampler:
    """Windows to fine-tune a classifier with: its class 0 is the background, k + 1 the k-th class.

    Args:
      windows: of each image.
      seed: of the choice.

    Raises:
      UserError: no window overlaps an object by half, or all do.
    """

    def __init__(self, windows: Sequence[Windows], seed: int = 0):
        image = np.concatenate([np.full(len(w.boxes), n) for n, w in enumerate(windows)])
        best = np.concatenate([w.overlap.max(1) for w in windows])
        label = np.concatenate([_nearest_label(w) for w in windows])
        near = best >= _POSITIVE
        self.positive = np.flatnonzero(near & (label >= 0))
        self.negative = np.flatnonzero(~near)
        for name, found in (("an object", self.positive), ("the background", self.negative)):
            if not len(found):
                raise UserError(f"No proposal is a window of {name}; there is nothing to learn.")
        self.image, self.label = image, np.where(near, label + 1, 0)
        self.boxes = np.concatenate([w.boxes for w in windows])
        self._rng = np.random.default_rng(seed)

    def __call__(
        self, positives: int = 32, negatives: int = 96
    ) -> tuple[Int[np.ndarray, " b"], Float[np.ndarray, "b 4"], Int[np.ndarray, " b"]]:
        """(image, box, class) of a batch, drawn evenly over all windows."""
        chosen = np.concatenate(
            [
                self._rng.choice(self.positive, positives),
                self._rng.choice(self.negative, negatives),
            ]
        )
        return self.image[chosen], self.boxes[chosen], self.label[chosen].astype(np.int32)


def _nearest_label(windows: Windows) -> np.ndarray:
    if not len(windows.objects.label):
        return np.full(len(windows.boxes), -1)
    return np.where(windows.nearest >= 0, windows.objects.label[windows.nearest], -1)


# -- scores ---------------------------------------------------------------------------------------


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
    sizes, added = [], []
    model = None
    for turn in range(rounds + 1):
        model = _fit(features, windows, kept, c, scale, tolerance, model)
        sizes.append(sum(map(len, kept)))
        if turn == rounds:
            break
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
        raise UserError(f"No window overlaps an object by {_REGRESSED}; there is nothing to learn.")
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


# -- detections -----------------------------------------------------------------------------------


class Detections(NamedTuple):
    """The objects of an image, by falling score; `valid` says which rows are some."""

    boxes: Float[Array, "m 4"]
    scores: Float[Array, " m"]
    labels: Int[Array, " m"]
    valid: Bool[Array, " m"]


@partial(jax.jit, static_argnames=("threshold", "most", "least"))
def detect(
    features: Float[Array, "n d"],
    boxes: Float[Array, "n 4"],
    valid: Bool[Array, " n"],
    model: Linear,
    regression: Regression | None,
    size: Float[Array, "2"],
    threshold: float = 0.3,
    most: int = 100,
    least: float = -2.0,
) -> Detections:
    """Scores windows, moves them, and keeps the best of each class that overlap.

    Args:
      features: of the windows.
      boxes: of the windows.
      valid: which rows are windows.
      model: SVMs of the classes.
      regression: moves the windows, if it is given.
      size: (height, width) of the image, to which boxes are cut.
      threshold: overlap of suppression among the boxes of a class.
      most: objects of an image.
      least: the score that an object has at least.
    """
    scores = linear.scores(model, features)
    count = scores.shape[1]
    moved = jnp.repeat(boxes[:, None], count, 1)
    if regression is not None:
        deltas = jnp.einsum("nd,kdm->nkm", features, regression.weight) + regression.bias
        moved = decode_deltas(deltas, moved)
    height, width = size
    moved = jnp.clip(moved, 0, jnp.stack([width, height, width, height]))
    flat = (x.reshape(-1, *x.shape[2:]) for x in (moved, scores))
    candidates, values = flat
    labels = jnp.tile(jnp.arange(count, dtype=jnp.int32), len(boxes))
    usable = jnp.where(jnp.repeat(valid, count) & (values >= least), values, -jnp.inf)
    best = jax.lax.top_k(usable, min(len(usable), _CANDIDATES))[1]
    candidates, values, labels = candidates[best], values[best], labels[best]
    index, kept = batched_nms(
        candidates, values, labels, threshold, most, jnp.isfinite(usable[best])
    )
    return Detections(
        jnp.where(kept[:, None], candidates[index], 0),
        jnp.where(kept, values[index], 0),
        jnp.where(kept, labels[index], 0),
        kept,
    )
