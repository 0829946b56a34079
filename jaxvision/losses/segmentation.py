"""Losses of label maps beside cross-entropy: focal, and those of regions.

Per-pixel losses give `(loss, weight)` as `cross_entropy` does. Losses of regions (Dice, IoU,
Tversky, Lovász) see all pixels of the batch at once and give one number: the mean over the classes
that occur. `mask` says which pixels count; what the others hold is never looked at.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


def focal(
    logits: Float[Array, "*b k"],
    targets: Int[Array, "*b"],
    *,
    gamma: float = 2.0,
    class_weights: Sequence[float] | Float[Array, " k"] | None = None,
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Cross-entropy of each pixel times `(1 - p)^gamma`, p the probability of its class.

    Lin et al., Focal Loss for Dense Object Detection, 2017, https://arxiv.org/abs/1708.02002, in
    the softmax form.

    Args:
      logits: unnormalised scores; computed in float32.
      targets: class indices.
      gamma: how much less a pixel counts that is already right; 0 is cross-entropy.
      class_weights: weight of each class.

    Returns:
      (loss, weight), both float32; `loss` already contains the weight.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    picked = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    weight = jnp.ones(targets.shape)
    if class_weights is not None:
        weight = jnp.asarray(class_weights, jnp.float32)[targets]
    # Not 1 - exp(log p), which loses all digits where p is near 1; its gradient stays finite.
    wrong = -jnp.expm1(jnp.minimum(picked, -1e-7))
    return -weight * wrong**gamma * picked, weight


def _regions(
    logits: Array, targets: Array, mask: Array, squared: bool = False
) -> tuple[Array, Array, Array]:
    """(overlap, predicted, true) of each class: sums over pixels of p·t, p and t, or p² and t."""
    p = jax.nn.softmax(logits.astype(jnp.float32))
    p = jnp.where(mask[..., None], p, 0.0)
    true = jax.nn.one_hot(targets, logits.shape[-1]) * mask[..., None]
    axes = tuple(range(targets.ndim))
    return (p * true).sum(axes), (p**2 if squared else p).sum(axes), true.sum(axes)


def _mean_of_present(losses: Array, true: Array) -> Array:
    present = true > 0
    return jnp.where(present, losses, 0).sum() / jnp.maximum(present.sum(), 1)


def dice(
    logits: Float[Array, "*b k"],
    targets: Int[Array, "*b"],
    mask: Bool[Array, "*b"],
    *,
    squared: bool = False,
    smooth: float = 0.0,
) -> Float[Array, ""]:
    """1 - 2 |A ∩ B| / (|A| + |B|), with probabilities for the prediction's membership.

    Milletari et al., V-Net, 2016, https://arxiv.org/abs/1606.04797, who square in the denominator.

    Args:
      logits: scores [..., classes].
      targets: class indices.
      mask: which pixels count.
      squared: whether the prediction's size is the sum of p², as in V-Net, rather than of p.
      smooth: added to numerator and denominator.
    """
    overlap, predicted, true = _regions(logits, targets, mask, squared)
    score = (2 * overlap + smooth) / jnp.maximum(predicted + true + smooth, 1e-7)
    return _mean_of_present(1 - score, true)


def soft_iou(
    logits: Float[Array, "*b k"],
    targets: Int[Array, "*b"],
    mask: Bool[Array, "*b"],
    *,
    smooth: float = 0.0,
) -> Float[Array, ""]:
    """1 - |A ∩ B| / |A ∪ B|, with probabilities for the prediction's membership.

    Rahman and Wang, Optimizing Intersection-Over-Union in Deep Neural Networks for Image
    Segmentation, 2016, https://doi.org/10.1007/978-3-319-50835-1_22.

    Args:
      logits, targets, mask, smooth: see `dice`.
    """
    overlap, predicted, true = _regions(logits, targets, mask)
    score = (overlap + smooth) / jnp.maximum(predicted + true - overlap + smooth, 1e-7)
    return _mean_of_present(1 - score, true)


def tversky(
    logits: Float[Array, "*b k"],
    targets: Int[Array, "*b"],
    mask: Bool[Array, "*b"],
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth: float = 0.0,
) -> Float[Array, ""]:
    """1 - TP / (TP + alpha FP + beta FN); halves give Dice, ones give IoU.

    Salehi et al., Tversky loss function for image segmentation, 2017,
    https://arxiv.org/abs/1706.05721.

    Args:
      logits, targets, mask, smooth: see `dice`.
      alpha: weight of false positives.
      beta: weight of false negatives.
    """
    overlap, predicted, true = _regions(logits, targets, mask)
    missed = alpha * (predicted - overlap) + beta * (true - overlap)
    score = (overlap + smooth) / jnp.maximum(overlap + missed + smooth, 1e-7)
    return _mean_of_present(1 - score, true)


def lovasz(
    logits: Float[Array, "*b k"], targets: Int[Array, "*b"], mask: Bool[Array, "*b"]
) -> Float[Array, ""]:
    """The convex extension of the Jaccard loss to probabilities: Lovász-Softmax.

    Berman et al., The Lovász-Softmax loss, 2018, https://arxiv.org/abs/1705.08790.

    Args:
      logits, targets, mask: see `dice`.
    """
    classes = logits.shape[-1]
    p = jax.nn.softmax(logits.astype(jnp.float32)).reshape(-1, classes)
    targets, mask = targets.reshape(-1), mask.reshape(-1)

    def of_class(index: Array) -> tuple[Array, Array]:
        true = (targets == index) & mask
        errors = jnp.where(mask, jnp.abs(true - p[:, index]), 0.0)
        # Pixels that do not count come last, with an error of zero and outside the class.
        falling, ours = lax.sort((-errors, true.astype(jnp.float32)), num_keys=1)
        size = ours.sum()
        jaccard = 1 - (size - jnp.cumsum(ours)) / (size + jnp.cumsum(1 - ours))
        slope = jnp.diff(jaccard, prepend=0.0)
        return -jnp.sum(falling * lax.stop_gradient(slope)), size

    losses, sizes = lax.map(of_class, jnp.arange(classes))
    return _mean_of_present(losses, sizes)


def hard_examples(
    losses: Float[Array, "*b"],
    mask: Bool[Array, "*b"],
    *,
    share: float,
    threshold: float = 0.7,
) -> Bool[Array, "*b"]:
    """Which pixels online hard example mining keeps: the worst, and all that are not sure.

    Shrivastava et al., Training Region-based Object Detectors with Online Hard Example Mining,
    2016, https://arxiv.org/abs/1604.03540, as it is done for pixels: kept is what the network gives
    its class less than `threshold`, and the `share` of worst pixels at least.

    Args:
      losses: unweighted cross-entropy of each pixel.
      mask: which pixels count.
      share: of the pixels that count, kept at least.
      threshold: a probability.
    """
    flat = jnp.sort(jnp.where(mask, losses, -jnp.inf).ravel(), descending=True)
    kept = jnp.maximum(jnp.ceil(share * mask.sum()).astype(jnp.int32), 1)
    bar = jnp.minimum(flat[kept - 1], -jnp.log(threshold))
    return mask & (lax.stop_gradient(losses) >= bar)
