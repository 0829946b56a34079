"""The networks that steps are measured on, here and in PyTorch."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests")]  # this project, and its references


@dataclass(frozen=True)
class Network:
    """One row.

    Attributes:
      title: as it is called in tables.
      model: the registry's name.
      options: for `jaxvision.models.create`.
      reference: `package:name`, or `torch_unet:`, see `reference`.
      reference_options: for it, but `img_size` of timm's transformers.
      classes: how many, or pixels' classes.
      pixels: whether each pixel is classified.
      batch, size: of a training step on CPUs: images, and their side.
      accelerator: (batch, size) on GPUs and TPUs.
    """

    title: str
    model: str
    reference: str
    options: dict[str, Any] = field(default_factory=dict)
    reference_options: dict[str, Any] = field(default_factory=dict)
    classes: int = 1000
    pixels: bool = False
    batch: int = 8
    size: int = 128
    accelerator: tuple[int, int] = (128, 224)


NETWORKS = {
    "resnet18": Network("ResNet-18", "resnet18", "torchvision:resnet18"),
    "resnet50": Network("ResNet-50", "resnet50", "torchvision:resnet50", accelerator=(256, 224)),
    "resnext50": Network("ResNeXt-50", "resnext50_32x4d", "torchvision:resnext50_32x4d"),
    "mobilenet_v2": Network(
        "MobileNetV2",
        "mobilenet_v2",
        "torchvision:mobilenet_v2",
        {"dropout": 0.0},
        {"dropout": 0.0},
        accelerator=(256, 224),
    ),
    "densenet121": Network("DenseNet-121", "densenet121", "torchvision:densenet121"),
    "vgg11_bn": Network(
        "VGG-11 with batch norm",
        "vgg11_bn",
        "torchvision:vgg11_bn",
        {"dropout": 0.0},
        {"dropout": 0.0},
    ),
    "resnet20_cifar": Network(
        "ResNet-20 for CIFAR",
        "resnet20_cifar10",
        "pytorchcv:resnet20_cifar10",
        classes=10,
        batch=128,
        size=32,
        accelerator=(512, 32),
    ),
    "vit_small": Network(
        "ViT-S/16",
        "vit_small_patch16_224",
        "timm:vit_small_patch16_224",
        accelerator=(256, 224),
    ),
    "vit_base": Network("ViT-B/16", "vit_base_patch16_224", "timm:vit_base_patch16_224"),
    "swin_tiny": Network(
        "Swin-T",
        "swin_tiny_patch4_window7_224",
        "timm:swin_tiny_patch4_window7_224",
        {"drop_path": 0.0},
        {"drop_path_rate": 0.0},
        batch=4,
        size=224,
    ),
    "unet": Network(
        "U-Net of width 32",
        "unet_small",
        "torch_unet:",
        reference_options={"width": 32},
        classes=4,
        pixels=True,
        batch=2,
        accelerator=(32, 256),
    ),
    "deeplabv3plus": Network(
        "DeepLab v3+, ResNet-18",
        "deeplabv3plus_resnet18",
        "smp:DeepLabV3Plus",
        {"dropout": 0.0},
        {"encoder_name": "resnet18", "encoder_weights": None, "decoder_aspp_dropout": 0.0},
        classes=21,
        pixels=True,
        batch=4,
        accelerator=(32, 512),
    ),
}


def reference(network: Network, size: int) -> Any:
    """The network in PyTorch.

    Raises:
      ImportError: its package is not installed.
    """
    from parity import references

    package, name = network.reference.split(":")
    options = dict(network.reference_options)
    if package == "torchvision":
        return getattr(references.torchvision().models, name)(
            num_classes=network.classes, **options
        )
    if package == "timm":
        if name.startswith(("vit", "swin")):
            options["img_size"] = size
        return references.timm().create_model(name, num_classes=network.classes, **options)
    if package == "smp":
        models = references.segmentation_models()
        return getattr(models, name)(classes=network.classes, **options)
    if package == "pytorchcv":
        references.torchvision()
        from pytorchcv.model_provider import get_model

        return get_model(name, num_classes=network.classes, **options)
    return torch_unet(network.classes, **options)


def torch_unet(classes: int, width: int, depth: int = 4) -> Any:
    """U-Net with same padding and batch norm, layer for layer as our `models.segmentation.unet`.

    Written here because the package `unet` is on few machines.
    """
    import torch
    from torch import nn

    class ConvBlock(nn.Sequential):
        def __init__(self, channels: int, features: int, normalise: bool = True):
            super().__init__()
            self.conv_layer = nn.Conv2d(channels, features, 3, padding=1, bias=not normalise)
            if normalise:
                self.norm_layer = nn.BatchNorm2d(features)
            self.activation = nn.ReLU(inplace=True)

    class Encoding(nn.Sequential):
        def __init__(self, channels: int, features: int, normalise: bool = True):
            super().__init__()
            self.conv1 = ConvBlock(channels, features, normalise)
            self.conv2 = ConvBlock(features, features)

    class Decoding(nn.Module):
        def __init__(self, channels: int, features: int):
            super().__init__()
            self.upsample = nn.ConvTranspose2d(channels, channels, 2, 2)
            self.conv1 = ConvBlock(channels + features, features)
            self.conv2 = ConvBlock(features, features)

        def forward(self, skip, x):
            x = torch.cat([skip, self.upsample(x)], 1)
            return self.conv2(self.conv1(x))

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [width * 2**level for level in range(depth + 1)]
            self.encoder = nn.Module()
            self.encoder.encoding_blocks = nn.ModuleList(
                Encoding(widths[level - 1] if level else 3, widths[level], level > 0)
                for level in range(depth)
            )
            self.bottom_block = Encoding(widths[-2], widths[-1])
            self.decoder = nn.Module()
            self.decoder.decoding_blocks = nn.ModuleList(
                Decoding(widths[level + 1], widths[level]) for level in reversed(range(depth))
            )
            self.classifier = nn.Sequential()
            self.classifier.conv_layer = nn.Conv2d(width, classes, 1)

        def forward(self, x):
            skips = []
            for block in self.encoder.encoding_blocks:
                skips.append(block(x))
                x = nn.functional.max_pool2d(skips[-1], 2)
            x = self.bottom_block(x)
            for block, skip in zip(self.decoder.decoding_blocks, reversed(skips), strict=True):
                x = block(skip, x)
            return self.classifier(x)

    return UNet()
