"""Losses of detectors: values an element or a box, and which negatives count.

They are float32 and not reduced: what they are divided by is each detector's own affair (`Ratio`).
Their gradients are finite for boxes without area too.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxvision.losses.classification import binary_cross_entropy
from jaxvision.ops.boxes import diou, giou


def smooth_l1(
    predictions: Float[Array, "*b"], targets: Float[Array, "*b"], beta: float = 1.0
) -> Float[Array, "*b"]:
    """The absolute difference, rounded off to a parabola where it is below `beta`.

    Girshick, Fast R-CNN, 2015, https://arxiv.org/abs/1504.08083, equation 3;
    `torch.nn.functional.smooth_l1_loss`.

    Args:
      predictions: of any shape.
      targets: of the same.
      beta: 0 is the absolute difference alone.
    """
    difference = jnp.abs(predictions.astype(jnp.float32) - targets)
    if beta == 0:
        return difference
    parabola = 0.5 * difference**2 / beta
    return jnp.where(difference < beta, parabola, difference - 0.5 * beta)


def balanced_l1(
    predictions: Float[Array, "*b"],
    targets: Float[Array, "*b"],
    *,
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 1.0,
) -> Float[Array, "*b"]:
    """Smooth L1 with a larger gradient where the difference is small.

    Pang et al., Libra R-CNN, 2019, https://arxiv.org/abs/1904.02701, equations 7 and 8, with the
    turning point at `beta` as in mmdetection.

    Args:
      predictions: of any shape.
      targets: of the same.
      alpha: the smaller, the larger the gradients of small differences.
      gamma: the gradient from `beta` on.
      beta: the difference from which on the loss is linear.
    """
    difference = jnp.abs(predictions.astype(jnp.float32) - targets)
    b = math.expm1(gamma / alpha)
    near = alpha / b * (b * difference + 1) * jnp.log(b * difference / beta + 1)
    far = gamma * difference + gamma / b - alpha * beta
    return jnp.where(difference < beta, near - alpha * difference, far)


def sigmoid_focal(
    logits: Float[Array, "*b"],
    targets: Float[Array, "*b"],
    *,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
) -> Float[Array, "*b"]:
    """Binary cross-entropy times `(1 - p)^gamma`, p the probability of what is true.

    Lin et al., Focal Loss for Dense Object Detection, 2017, https://arxiv.org/abs/1708.02002;
    torchvision's `sigmoid_focal_loss`.

    Args:
      logits: unnormalised scores of any shape; computed in float32.
      targets: 0 to 1, of the same shape.
      alpha: weight of what is there, 1 - alpha of what is not; None for no weights.
      gamma: how much less an entry counts that is already right; 0 is cross-entropy.
    """
    logits = logits.astype(jnp.float32)
    loss = binary_cross_entropy(logits[..., None], targets[..., None])[..., 0]
    # Not 1 - sigmoid, which loses all digits; never quite 0, where a power has no gradient.
    wrong = targets * jax.nn.sigmoid(-logits) + (1 - targets) * jax.nn.sigmoid(logits)
    loss *= jnp.maximum(wrong, 1e-30) ** gamma
    if alpha is not None:
        loss *= alpha * targets + (1 - alpha) * (1 - targets)
    return loss


def giou_loss(
    boxes: Float[Array, "*b 4"], targets: Float[Array, "*b 4"], epsilon: float = 1e-7
) -> Float[Array, "*b"]:
    """1 - GIoU of each pair: torchvision's `generalized_box_iou_loss`; see `ops.boxes.giou`."""
    return 1 - giou(boxes.astype(jnp.float32), targets, epsilon)


def diou_loss(
    boxes: Float[Array, "*b 4"], targets: Float[Array, "*b 4"], epsilon: float = 1e-7
) -> Float[Array, "*b"]:
    """1 - DIoU of each pair: torchvision's `distance_box_iou_loss`; see `ops.boxes.diou`."""
    return 1 - diou(boxes.astype(jnp.float32), targets, epsilon)


def hard_negative_mining(
    losses: Float[Array, "*b n"], positive: Bool[Array, "*b n"], ratio: float | int = 3
) -> Bool[Array, "*b n"]:
    """The negatives of each image that cost most, `ratio` times as many as it has positives.

    Liu et al., SSD, 2015, https://arxiv.org/abs/1512.02325, section 2.2, as in torchvision, but
    that no positive is counted again where there are too few negatives.

    Args:
      losses: of classifying each default box.
      positive: which ones have an object.
      ratio: negatives for each positive.
    """
    hardness = jnp.where(positive, -jnp.inf, lax.stop_gradient(losses))
    rank = jnp.argsort(jnp.argsort(-hardness, -1), -1)
    return ~positive & (rank < ratio * positive.sum(-1, keepdims=True))


def gaussian_focal(
    logits: Float[Array, "*b"], targets: Float[Array, "*b"], *, alpha: float = 2, gamma: float = 4
) -> Float[Array, "*b"]:
    """Focal loss of a heat map: where the target is 1 is an object, near it an error counts less.

    Law and Deng, CornerNet, 2018, https://arxiv.org/abs/1808.01244, equation 1.

    Args:
      logits: of any shape.
      targets: from 0 to 1.
      alpha: how much what is sure already counts less.
      gamma: how much what is near an object does.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    likely = jax.nn.sigmoid(logits)
    there = jax.nn.softplus(-logits) * (1 - likely) ** alpha
    absent = jax.nn.softplus(logits) * likely**alpha * (1 - targets) ** gamma
    return jnp.where(targets == 1, there, absent)
