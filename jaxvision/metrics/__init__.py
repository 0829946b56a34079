"""Metrics as accumulators: sums that add up over batches, devices and hosts, then one division."""

from jaxvision.metrics.accumulators import (
    ConfusionMatrix,
    Mean,
    TopK,
    add,
    compute,
)
from jaxvision.metrics.boundary import BoundaryF1
from jaxvision.metrics.frechet import frechet_distance
from jaxvision.metrics.intervals import wilson_interval
from jaxvision.metrics.ranking import LabelCounts, average_precision

__all__ = [
    "BoundaryF1",
    "ConfusionMatrix",
    "LabelCounts",
    "Mean",
    "TopK",
    "add",
    "average_precision",
    "compute",
    "frechet_distance",
    "wilson_interval",
]
