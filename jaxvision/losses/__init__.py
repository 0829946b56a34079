"""Losses: pure functions of logits and labels: a value a sample or pixel, or of all regions."""

from jaxvision.losses.classification import (
    cross_entropy,
    margin_loss,
    masked_mean,
    multiclass_hinge,
    penalty,
)
from jaxvision.losses.segmentation import dice, focal, hard_examples, lovasz, soft_iou, tversky

__all__ = [
    "cross_entropy",
    "dice",
    "focal",
    "hard_examples",
    "lovasz",
    "margin_loss",
    "masked_mean",
    "multiclass_hinge",
    "penalty",
    "soft_iou",
    "tversky",
]
