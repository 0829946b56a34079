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

__all__ = ["BoundaryF1", "ConfusionMatrix", "Mean", "TopK", "add", "compute", "frechet_distance"]
