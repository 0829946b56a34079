"""Losses: pure functions of logits and labels: a value a sample, pixel or box, or of all regions.

`PER_SAMPLE` and `REGIONS` are the registries that configurations name losses from; a loss of your
own is added by a decorator:

    @losses.PER_SAMPLE.register("my_loss")
    def my_loss(logits, targets, *, class_weights=None):  # -> (losses [b], weights [b])
"""

from collections.abc import Callable
from typing import Any

from jaxvision.losses.autoencoding import (
    bernoulli_nll,
    free_nats,
    gaussian_kl,
    gaussian_nll,
    laplace_nll,
    logit_laplace_nll,
    map_pixels,
    squared_distance,
    uniform_kl,
    unmap_pixels,
)
from jaxvision.losses.classification import (
    binary_cross_entropy,
    cross_entropy,
    margin_loss,
    multiclass_hinge,
    penalty,
)
from jaxvision.losses.detection import (
    balanced_l1,
    diou_loss,
    giou_loss,
    hard_negative_mining,
    sigmoid_focal,
    smooth_l1,
)
from jaxvision.losses.objective import Objective, Ratio, masked_mean, masked_ratio
from jaxvision.losses.pose import heatmap_loss
from jaxvision.losses.segmentation import dice, focal, hard_examples, lovasz, soft_iou, tversky
from jaxvision.registry import Registry

# (logits [*b, k], targets, **options) to (loss, weight) of each sample or pixel.
PER_SAMPLE: Registry[Callable[..., Any]] = Registry(
    "loss",
    {
        "cross_entropy": cross_entropy,
        "focal": focal,
        "hinge": multiclass_hinge,
        "margin": margin_loss,
    },
)
# (logits, targets, mask, **options) to one number.
REGIONS: Registry[Callable[..., Any]] = Registry(
    "loss of regions", {"dice": dice, "soft_iou": soft_iou, "tversky": tversky, "lovasz": lovasz}
)

__all__ = [
    "PER_SAMPLE",
    "REGIONS",
    "Objective",
    "Ratio",
    "balanced_l1",
    "bernoulli_nll",
    "binary_cross_entropy",
    "cross_entropy",
    "dice",
    "diou_loss",
    "focal",
    "free_nats",
    "gaussian_kl",
    "gaussian_nll",
    "giou_loss",
    "hard_examples",
    "hard_negative_mining",
    "heatmap_loss",
    "laplace_nll",
    "logit_laplace_nll",
    "lovasz",
    "map_pixels",
    "margin_loss",
    "masked_mean",
    "masked_ratio",
    "multiclass_hinge",
    "penalty",
    "sigmoid_focal",
    "smooth_l1",
    "soft_iou",
    "squared_distance",
    "tversky",
    "uniform_kl",
    "unmap_pixels",
]
