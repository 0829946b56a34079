"""Objects of a large photograph, from those of its tiles."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxvision.metrics.detection import overlaps
from jaxvision.ops.suppression import batched_nms

_NEAR = 0.02  # of a tile's side: boxes that end so near to an edge may be cut off there
_suppress = jax.jit(batched_nms, static_argnums=(3, 4))

Outputs = dict[str, np.ndarray]


def joined(
    outputs: Sequence[Mapping[str, np.ndarray]],
    corners: Int[np.ndarray, "t 2"],
    tile: Sequence[int],
    size: Sequence[int],
    threshold: float,
) -> Outputs:
    """`boxes` [n, 4] in pixels of the photograph, `scores`, `labels`, `valid` [n]; best first.

    What else is found of each object comes along, `keypoints` [n, k, 3] in the photograph's pixels.

    A box that ends at a tile's edge within the photograph is left out where another tile has one
    of its class, with all its edges, whose part in this tile is that box. Of what remains each
    class is suppressed. Where the overlap of tiles is smaller than an object none may see it whole,
    and its parts stay. What one tile sees of a photograph is given as it is.

    Args:
      outputs: of a detector, without their batch axis, of each tile.
      corners: where tiles begin, (row, column).
      tile: height and width of a tile.
      size: of the photograph.
      threshold: IoU from which two boxes are of one object.
    """
    if len(outputs) == 1:
        return dict(outputs[0])
    ends = np.minimum(corners + np.array(tile), size)
    inner = np.concatenate([corners > 0, ends < np.array(size)], 1)[:, [1, 0, 3, 2]]
    frames = np.concatenate([corners, ends], 1)[:, [1, 0, 3, 2]].astype(np.float32)
    number = np.repeat(np.arange(len(outputs)), [int(one["valid"].sum()) for one in outputs])
    found = {key: np.concatenate([one[key][one["valid"]] for one in outputs]) for key in outputs[0]}
    boxes, labels = (
        found["boxes"].astype(np.float32) + np.tile(frames[number, :2], 2),
        found["labels"],
    )
    found["boxes"] = boxes
    if "keypoints" in found:
        found["keypoints"] = found["keypoints"].astype(np.float32)
        found["keypoints"][..., :2] += frames[number, None, :2]
    near = _NEAR * np.tile([tile[1], tile[0]], 2)
    cut = (inner[number] & (np.abs(boxes - frames[number]) < near)).any(1)
    kept = ~cut
    for index in np.nonzero(cut)[0]:
        whole = ~cut & (labels == labels[index]) & (number != number[index])
        frame = frames[number[index]]
        inside = np.clip(boxes[whole], np.tile(frame[:2], 2), np.tile(frame[2:], 2))
        kept[index] = not (overlaps(boxes[index], inside) > threshold).any()
    found = {key: value[kept] for key, value in found.items()}
    best = _best(found["boxes"], found["scores"], found["labels"], threshold)
    return {key: value[best] for key, value in found.items()}


def _best(
    boxes: Float[np.ndarray, "n 4"],
    scores: Float[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    threshold: float,
) -> Int[np.ndarray, " m"]:
    """The objects that suppression leaves, from the highest score on."""
    # Powers of two, so that few programs are compiled.
    length = max(16, 1 << (len(scores) - 1).bit_length())

    def padded(rows: np.ndarray) -> np.ndarray:
        return np.pad(rows, [(0, length - len(rows)), *[(0, 0)] * (rows.ndim - 1)])

    valid = padded(np.ones(len(scores), bool))
    rows = (padded(part) for part in (boxes, scores, labels))
    index, there = jax.device_get(_suppress(*rows, threshold, length, valid))
    return index[there]
