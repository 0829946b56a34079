"""What detectors of torchvision share: how they are called."""

import os
import sys
from typing import Any

from parity.detectors import Case


def as_it_is(case: Case) -> dict[str, Any]:
    """Arguments of a detector that keep its images as they are."""
    sides = case.image[2:]
    sizes = {"min_size": min(sides), "max_size": max(sides)}
    return {"image_mean": [0.0] * 3, "image_std": [1.0] * 3, **sizes}


def operators() -> None:
    """Lets torchvision have its operators: compiled, or those of a module `tv_stub`.

    Raises:
      RuntimeError: they do not load; TORCHVISION_OPERATORS names no folder with `tv_stub`.
    """
    if folder := os.environ.get("TORCHVISION_OPERATORS"):
        sys.path.insert(0, folder)
        import tv_stub  # noqa: F401
    import torchvision

    torchvision.extension._assert_has_ops()


def detections(network: Any, images: Any) -> list[dict[str, Any]]:
    import torch

    with torch.no_grad():
        found = network.eval()(list(images))
    return [{**one, "labels": one["labels"] - 1} for one in found]


def losses(network: Any, images: Any, targets: list[dict[str, Any]]) -> dict[str, Any]:
    shifted = [{**one, "labels": one["labels"] + 1} for one in targets]
    return network.train()(list(images), shifted)
