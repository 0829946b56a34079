"""Metrics as accumulators: sums that add up over batches, devices and hosts, then one division."""

from jaxvision.metrics.accumulators import (
    ConfusionMatrix,
    Mean,
    TopK,
    add,
    compute,
)

__all__ = ["ConfusionMatrix", "Mean", "TopK", "add", "compute"]
