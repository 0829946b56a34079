"""Losses of masks and key points of objects: He et al., Mask R-CNN, 2017.

https://arxiv.org/abs/1703.06870. Reference: torchvision's `maskrcnn_loss` and `keypointrcnn_loss`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvision.losses.classification import binary_cross_entropy, cross_entropy
from jaxvision.losses.objective import Ratio


def mask_loss(
    logits: Float[Array, "b n h w k"],
    targets: Float[Array, "b n h w"],
    labels: Int[Array, "b n"],
    valid: Bool[Array, "b n"],
) -> Ratio:
    """Binary cross-entropy of the true class's mask, a mean over cells and boxes.

    Args:
      logits: of the mask of each class, or of one for all classes.
      targets: the part of each cell that is covered.
      labels: which mask is the true one; of one for all classes any.
      valid: which boxes count.
    """
    if logits.shape[-1] == 1:
        labels = jnp.zeros_like(labels)
    own = jnp.take_along_axis(logits, labels[..., None, None, None], -1)
    entropy = binary_cross_entropy(own, targets[..., None])[..., 0].mean((2, 3))
    return Ratio(jnp.where(valid, entropy, 0).sum(), valid.sum().astype(entropy.dtype))


def keypoint_loss(
    heatmaps: Float[Array, "b n h w k"], cells: Int[Array, "b n k"], valid: Bool[Array, "b n k"]
) -> Ratio:
    """Cross-entropy over a heat map's cells, a mean over the key points.

    Args:
      heatmaps: logits of each key point.
      cells: where it is, row by row.
      valid: which key points count.
    """
    flat = heatmaps.reshape(*heatmaps.shape[:2], -1, heatmaps.shape[-1]).swapaxes(2, 3)
    entropy, _ = cross_entropy(flat, cells)
    return Ratio(jnp.where(valid, entropy, 0).sum(), valid.sum().astype(entropy.dtype))
