"""Simple baselines (Xiao et al. 2018): transposed convolutions behind torchvision's ResNet."""

import torch
from torch import nn


class PoseResNet(nn.Module):
    """The parts of a ResNet before its mean, three transposed convolutions, and a 1x1 one."""

    def __init__(self, resnet: nn.Module, classes: int, widths=(256, 256, 256)):
        super().__init__()
        channels = resnet.fc.in_features
        for name, part in list(resnet.named_children())[:-2]:
            setattr(self, name, part)
        layers = []
        for width in widths:
            layers += [
                nn.ConvTranspose2d(channels, width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(channels, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.final_layer(self.deconv_layers(x))
