"""The packages that hold most references."""

import importlib.util
import sys
from pathlib import Path
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


def segmentation_models() -> ModuleType:
    """segmentation_models_pytorch, which imports torchvision and timm."""
    timm()
    import segmentation_models_pytorch

    return segmentation_models_pytorch


def torchfcn() -> ModuleType:
    """`torchfcn.models`, without what the package trains and downloads with."""
    torchvision()
    if "torchfcn" not in sys.modules:
        package = ModuleType("torchfcn")
        package.__path__ = importlib.util.find_spec("torchfcn").submodule_search_locations
        sys.modules["torchfcn"], sys.modules["fcn"] = package, ModuleType("fcn")
    return importlib.import_module("torchfcn.models")


def mmdet() -> ModuleType:
    """The package beside mmcv-lite, which lacks the operators that mmcv compiles."""
    torchvision()
    if "mmcv._ext" not in sys.modules:
        operators = ModuleType("mmcv._ext")
        operators.__getattr__ = lambda name: None  # looked up when mmcv is imported, not called
        sys.modules["mmcv._ext"] = operators
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    import mmdet.models

    return mmdet


def holocron() -> ModuleType:
    """The package of pylocron, without what it trains with."""
    torchvision()
    sys.modules.setdefault("holocron.trainer", ModuleType("holocron.trainer"))
    import holocron.models

    return holocron


def transformers() -> ModuleType:
    """The package, which imports torchvision."""
    torchvision()
    import transformers

    return transformers


def first_blocks(resnet: torch.nn.Module) -> None:
    """Leaves a ResNet of torchvision the first block of each stage, in place."""
    for stage in range(1, 5):
        setattr(resnet, f"layer{stage}", getattr(resnet, f"layer{stage}")[:1])


def basicsr(name: str) -> ModuleType:
    """`basicsr.archs.NAME`, without the rest of the package and without its kernels."""
    torchvision()
    if "basicsr" not in sys.modules:
        (root,) = importlib.util.find_spec("basicsr").submodule_search_locations
        for part in ("", ".archs", ".utils", ".ops", ".ops.dcn"):
            package = ModuleType(f"basicsr{part}")
            package.__path__ = [str(Path(root, *part.split(".")[1:]))]
            sys.modules[package.__name__] = package
        sys.modules["basicsr.utils"].get_root_logger = None
        dcn = sys.modules["basicsr.ops.dcn"]
        dcn.ModulatedDeformConvPack, dcn.modulated_deform_conv = torch.nn.Module, None
    return importlib.import_module(f"basicsr.archs.{name}")


def stylegan2() -> ModuleType:
    """`basicsr.archs.stylegan2_arch`, whose one kernel is two lines of PyTorch."""
    module = basicsr("stylegan2_arch")

    def fused_leaky_relu(x, bias):
        bias = bias.view(1, -1, *[1] * (x.ndim - 2))
        return 2**0.5 * torch.nn.functional.leaky_relu(x + bias, 0.2)

    class FusedLeakyReLU(torch.nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(channels))

        def forward(self, x):
            return fused_leaky_relu(x, self.bias)

    module.fused_leaky_relu, module.FusedLeakyReLU = fused_leaky_relu, FusedLeakyReLU
    return module


def diffusers() -> ModuleType:
    """The package, which imports torchvision."""
    torchvision()
    import diffusers

    return diffusers


def pythae() -> ModuleType:
    """`pythae.models`, which import torchvision."""
    torchvision()
    import pythae.models

    return pythae.models
