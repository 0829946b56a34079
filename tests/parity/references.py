"""The packages that hold most references."""

import sys
from types import ModuleType

import torch


def torchvision() -> ModuleType:
    """The package; its compiled part does not load beside a CPU build of torch (vision#9085)."""
    try:
        import torchvision
    except RuntimeError:
        for name in [n for n in sys.modules if n.startswith("torchvision")]:
            del sys.modules[name]
        global _operators
        _operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _operators.define(f"{name}(Tensor dets, Tensor scores, float iou) -> Tensor")
        import torchvision
    return torchvision


def timm() -> ModuleType:
    """The package, which imports torchvision."""
    torchvision()
    import timm

    return timm
