"""Simple baselines (Xiao et al. 2018): transposed convolutions behind torchvision's ResNet."""

import torch
from torch import nn


class PoseResNet(nn.Module):
    """What a ResNet has before its mean, transposed convolutions, and a 1x1 one."""

    def __init__(self, resnet: nn.Module, channels: int, widths: tuple[int, ...], classes: int):
        super().__init__()
        for name, part in resnet.named_children():
            if name not in ("avgpool", "fc"):
                setattr(self, name, part)
        layers = []
        for width in widths:
            deconv = nn.ConvTranspose2d(channels, width, 4, 2, 1, bias=False)
            layers += [deconv, nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(channels, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.children():
            x = part(x)
        return x
