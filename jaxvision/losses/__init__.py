"""Losses: pure functions of logits and labels that return one value a sample or pixel."""

from jaxvision.losses.classification import (
    cross_entropy,
    margin_loss,
    masked_mean,
    multiclass_hinge,
    penalty,
)

__all__ = ["cross_entropy", "margin_loss", "masked_mean", "multiclass_hinge", "penalty"]
