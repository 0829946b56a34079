"""Region proposal network: Ren et al., Faster R-CNN, 2015, https://arxiv.org/abs/1506.01497.

Reference: torchvision's `RegionProposalNetwork`. Everything has a fixed size: proposals are padded,
and masks say which count.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d
from jaxvision.losses.classification import binary_cross_entropy
from jaxvision.losses.detection import smooth_l1
from jaxvision.losses.objective import Ratio
from jaxvision.models.detection.targets import Boxes
from jaxvision.ops.anchors import cell_anchors, grid_anchors
from jaxvision.ops.boxes import clip, decode_deltas, encode_deltas, pairwise_iou
from jaxvision.ops.forms import accumulable
from jaxvision.ops.matching import BACKGROUND, balanced_sample, match_boxes
from jaxvision.ops.suppression import batched_nms

_BETA = 1 / 9  # from where on the boxes' loss is linear


class Proposals(NamedTuple):
    """Boxes that may hold an object, by falling score."""

    boxes: Float[Array, "b n 4"]  # in pixels of the image
    scores: Float[Array, "b n"]  # 0 to 1; 0 where not valid
    valid: Bool[Array, "b n"]


class Sampling(NamedTuple):
    """What is learnt from: of each image so many anchors or proposals, by their overlap with boxes.

    Attributes:
      number: of an image.
      positive_share: how many of them may be positive.
      high: from this IoU on one is positive.
      low: below it one is negative;
      least: but not below this, unless its image has no objects.
    """

    number: int
    positive_share: float
    high: float
    low: float
    least: float = 0.0


class Learning(NamedTuple):
    """What a stage learns, and the key by which it is drawn from what."""

    truth: Boxes
    key: PRNGKeyArray


class Found(NamedTuple):
    """What a region proposal network gives.

    Attributes:
      proposals: the best boxes.
      outputs: of the head, by the names of a detector's `heads`.
      losses: of what was learnt; none otherwise.
    """

    proposals: Proposals
    outputs: dict[str, Array]
    losses: dict[str, Ratio]


class RPNHead(nn.Module):
    """3x3 convolutions, and of each anchor at each place an objectness and a box.

    Attributes:
      anchors: at a place.
      depth: how many convolutions.
    """

    anchors: int
    depth: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(
        self, maps: Sequence[Float[Array, "b _ _ c"]]
    ) -> tuple[list[Float[Array, "b _"]], list[Float[Array, "b _ 4"]]]:
        def conv(features: int, size: int, name: str) -> Conv2d:
            init = nn.initializers.normal(0.01)
            return Conv2d(features, size, dtype=self.dtype, kernel_init=init, name=name)

        width = maps[0].shape[-1]
        hidden = [conv(width, 3, f"conv_{index}_0") for index in range(self.depth)]
        classify, regress = (
            conv(self.anchors, 1, "cls_logits"),
            conv(4 * self.anchors, 1, "bbox_pred"),
        )
        logits, deltas = [], []
        for x in maps:
            for layer in hidden:
                x = nn.relu(layer(x))
            logits.append(accumulable(classify(x).reshape(x.shape[0], -1)))
            deltas.append(accumulable(regress(x).reshape(x.shape[0], -1, 4)))
        return logits, deltas


def level_anchors(
    image_size: tuple[int, int],
    maps: Sequence[Float[Array, "b _ _ c"]],
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float],
) -> list[Float[np.ndarray, "_ 4"]]:
    """The anchors of each map, by rows, columns, ratios and sizes.

    Args:
      image_size: (height, width) in pixels.
      maps: of the pyramid.
      sizes: of each map's anchors, in pixels.
      ratios: of all, height by width.

    Raises:
      UserError: not as many lists of sizes as maps.
    """
    if len(sizes) != len(maps):
        raise UserError(
            f"There are anchor_sizes for {len(sizes)} maps, but the pyramid has {len(maps)}."
        )
    anchors = []
    for x, side in zip(maps, sizes, strict=True):
        rows, columns = x.shape[1:3]
        stride = (image_size[0] // rows, image_size[1] // columns)
        anchors.append(grid_anchors(cell_anchors(side, ratios), (rows, columns), stride))
    return anchors


def region_proposals(
    detector: Any,
    maps: Sequence[Float[Array, "b _ _ c"]],
    image_size: tuple[int, int],
    learning: Learning | None,
) -> Found:
    """Runs a region proposal network, whose head becomes `rpn.head` of the detector.

    Args:
      detector: the Linen module whose compact method this is called in; it has `anchor_sizes`,
        `anchor_ratios`, `rpn_depth`, `candidates`, `proposals`, `proposal_nms`, `anchor_sampling`
        and `dtype`, see `FasterRCNN`.
      maps: what the head sees.
      image_size: (height, width) in pixels.
      learning: in training.

    Raises:
      UserError: not as many lists of sizes as maps.
    """
    anchors = level_anchors(image_size, maps, detector.anchor_sizes, detector.anchor_ratios)
    count = len(detector.anchor_sizes[0]) * len(detector.anchor_ratios)
    head = RPNHead(count, detector.rpn_depth, dtype=detector.dtype, name="rpn.head")
    logits, deltas = head(maps)
    phase = int(learning is not None)
    proposals = propose(
        logits,
        deltas,
        anchors,
        image_size,
        detector.candidates[phase],
        detector.proposals[phase],
        detector.proposal_nms,
    )
    outputs = {
        "objectness": jnp.concatenate(logits, 1),
        "rpn_deltas": jnp.concatenate(deltas, 1),
        **dict(zip(("proposals", "proposal_scores", "proposal_valid"), proposals, strict=True)),
    }
    for index, (x, z) in enumerate(zip(maps, logits, strict=True)):
        best = z.reshape(*x.shape[:3], count).max(-1)
        outputs[f"heat/objectness {index}"] = jax.nn.sigmoid(best)
    losses = {}
    if learning is not None:
        losses = rpn_losses(
            outputs["objectness"],
            outputs["rpn_deltas"],
            jnp.asarray(np.concatenate(anchors), deltas[0].dtype),
            learning.truth,
            Sampling(*detector.anchor_sampling),
            learning.key,
        )
    return Found(proposals, outputs, losses)


def shown(outputs: dict[str, Array]) -> dict[str, Array]:
    """Of what a detector's `heads` give, the maps of objectness and the proposals."""
    return {name: x for name, x in outputs.items() if name.startswith(("heat/", "proposal"))}


def propose(
    logits: Sequence[Float[Array, "b _"]],
    deltas: Sequence[Float[Array, "b _ 4"]],
    anchors: Sequence[Float[np.ndarray, "_ 4"]],
    image_size: tuple[int, int],
    candidates: int,
    count: int,
    threshold: float,
) -> Proposals:
    """The best boxes of all levels, without those that overlap a better one of their level.

    Args:
      logits, deltas: of the head, level by level; no gradient flows to them.
      anchors: of each level.
      image_size: (height, width) that boxes are clipped to.
      candidates: of a level before suppression.
      count: of proposals.
      threshold: IoU above which the worse box is dropped.
    """
    boxes, scores, levels = [], [], []
    for index, (z, d, a) in enumerate(zip(logits, deltas, anchors, strict=True)):
        score, best = lax.top_k(lax.stop_gradient(z), min(candidates, z.shape[1]))
        chosen = jnp.take_along_axis(lax.stop_gradient(d), best[..., None], 1)
        boxes.append(clip(decode_deltas(chosen, jnp.asarray(a, d.dtype)[best]), *image_size))
        scores.append(jax.nn.sigmoid(score))
        levels.append(jnp.full(score.shape[1:], index, jnp.int32))
    all_boxes, all_scores = jnp.concatenate(boxes, 1), jnp.concatenate(scores, 1)
    level = jnp.concatenate(levels)

    def suppress(boxes: Array, scores: Array) -> Proposals:
        large = jnp.all(boxes[:, 2:] - boxes[:, :2] >= 1e-3, -1)
        best, kept = batched_nms(boxes, scores, level, threshold, count, large)
        return Proposals(
            jnp.where(kept[:, None], boxes[best], 0), jnp.where(kept, scores[best], 0), kept
        )

    return jax.vmap(suppress)(all_boxes, all_scores)


def assign(
    places: Float[Array, "n 4"],
    boxes: Float[Array, "g 4"],
    valid: Bool[Array, " g"],
    sampling: Sampling,
    allow_low_quality: bool,
) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
    """(the box that each anchor or proposal has, 1, 0 or -1: an object, background or neither)."""
    overlaps = pairwise_iou(boxes, places)
    matches = match_boxes(overlaps, valid, sampling.high, sampling.low, allow_low_quality)
    label = jnp.where(matches >= 0, 1, jnp.where(matches == BACKGROUND, 0, -1))
    if sampling.least > 0:
        near = jnp.max(jnp.where(valid[:, None], overlaps, 0), 0, initial=0) >= sampling.least
        label = jnp.where((label == 0) & ~near & jnp.any(valid), -1, label)
    return jnp.maximum(matches, 0), label


def rpn_losses(
    logits: Float[Array, "b n"],
    deltas: Float[Array, "b n 4"],
    anchors: Float[Array, "n 4"],
    truth: Boxes,
    sampling: Sampling,
    key: PRNGKeyArray,
) -> dict[str, Ratio]:
    """Cross-entropy of the drawn anchors, and smooth L1 of those with an object."""

    def one(
        boxes: Array, valid: Array, row: Array, key: PRNGKeyArray
    ) -> tuple[Array, Array, Array]:
        match, label = assign(anchors, boxes, valid, sampling, allow_low_quality=True)
        drawn = balanced_sample(label, key, sampling.number, sampling.positive_share)
        positive, negative = (mask & row for mask in drawn)
        return encode_deltas(boxes[match], anchors), positive, negative

    keys = jax.random.split(key, len(logits))
    wanted, positive, negative = jax.vmap(one)(truth.boxes, truth.valid, truth.rows, keys)
    count = (positive.sum() + negative.sum()).astype(logits.dtype)
    entropy = binary_cross_entropy(logits[..., None], positive[..., None].astype(logits.dtype))
    distance = smooth_l1(deltas, wanted, _BETA).sum(-1)
    return {
        "loss_objectness": Ratio(jnp.where(positive | negative, entropy[..., 0], 0).sum(), count),
        "loss_rpn_box_reg": Ratio(jnp.where(positive, distance, 0).sum(), count),
    }
