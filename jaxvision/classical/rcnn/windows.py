"""Windows: cut out of images, described by pyramids, and what they are."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxvision.errors import UserError
from jaxvision.metrics.detection import overlaps
from jaxvision.ops.roi import roi_align, roi_pool

PYRAMID = (6, 3, 2, 1)

_POSITIVE = 0.5  # overlap of a window of an object, in fine-tuning
_REGRESSED = 0.6  # overlap from which a window learns to move


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
