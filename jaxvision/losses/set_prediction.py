"""DETR's loss of a set of predictions: each box is given to one of them, all others are nothing.

Carion et al., End-to-End Object Detection with Transformers, 2020,
https://arxiv.org/abs/2005.12872, section 3.1. Boxes are (centre x, centre y, width, height) in
parts of the image's sides.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxvision.losses.objective import Ratio
from jaxvision.ops.boxes import from_centers, giou, pairwise_giou
from jaxvision.ops.matching import hungarian

# Weights beside that of the class, which is 1: of the costs of a match and of the losses.
_L1, _GIOU = 5.0, 2.0
# Of having no prediction, where there are more boxes than predictions: more than any path of costs.
_LEFT_OUT = 1e4


def match_sets(
    logits: Float[Array, "q k"],
    boxes: Float[Array, "q 4"],
    labels: Int[Array, " n"],
    truth: Float[Array, "n 4"],
    valid: Bool[Array, " n"],
) -> Int[Array, " n"]:
    """The prediction that each box is given so that all cost least; -1 where it gets none.

    A match costs 5 times the L1 distance of the boxes less twice their GIoU and the probability of
    the box's class. If there are more boxes than predictions, those that cost most get none.

    Args: see `set_losses`; of one image.
    """
    logits, boxes, truth = lax.stop_gradient((logits, boxes, truth))
    apart = jnp.abs(boxes[:, None] - truth).sum(-1)
    overlap = pairwise_giou(from_centers(boxes), from_centers(truth))
    cost = _L1 * apart - _GIOU * overlap - jax.nn.softmax(logits)[:, labels]
    queries, slots = cost.shape
    cost = jnp.pad(cost, ((0, max(0, slots - queries)), (0, 0)), constant_values=_LEFT_OUT)
    found = hungarian(cost, valid)
    return jnp.where(found < queries, found, -1)


def set_losses(
    logits: Float[Array, "b q k"],
    boxes: Float[Array, "b q 4"],
    labels: Int[Array, "b n"],
    truth: Float[Array, "b n 4"],
    valid: Bool[Array, "b n"],
    counted: Bool[Array, " b"],
    no_object: float = 0.1,
) -> dict[str, Ratio]:
    """Cross-entropy, L1 times 5 and 1 - GIoU times 2, of predictions matched to boxes.

    The cross-entropy is a mean weighted by class, the other two are divided by the number of boxes.

    Args:
      logits: of the predictions; the last class is no object.
      boxes: of the predictions.
      labels: classes of the true boxes.
      truth: the true boxes.
      valid: which of them count.
      counted: which images count.
      no_object: weight of the class of no object.

    Returns:
      `ce`, `bbox` and `giou`, whose weights do not depend on the predictions.
    """
    queries, nothing = logits.shape[1], logits.shape[2] - 1
    valid = valid & counted[:, None]
    match = jax.vmap(match_sets)(logits, boxes, labels, truth, valid)
    found, image = match >= 0, jnp.arange(len(match))[:, None]
    wanted = jnp.full(logits.shape[:2], nothing)
    wanted = wanted.at[image, jnp.where(found, match, queries)].set(labels, mode="drop")
    likelihood = jnp.take_along_axis(jax.nn.log_softmax(logits), wanted[..., None], -1)[..., 0]
    weights = jnp.where(wanted == nothing, no_object, 1.0) * counted[:, None]
    matched = jnp.minimum(valid.sum(1), queries)
    weight = jnp.where(counted, matched + no_object * (queries - matched), 0.0).sum()
    own = boxes[image, jnp.maximum(match, 0)]
    apart = jnp.abs(own - truth).sum(-1)
    unlike = 1 - giou(from_centers(own), from_centers(truth))
    number = valid.sum().astype(jnp.float32)
    return {
        "ce": Ratio(-(weights * likelihood).sum(), weight),
        "bbox": Ratio(_L1 * jnp.where(found, apart, 0.0).sum(), number),
        "giou": Ratio(_GIOU * jnp.where(found, unlike, 0.0).sum(), number),
    }
