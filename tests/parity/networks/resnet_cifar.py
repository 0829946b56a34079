"""The CIFAR ResNets of He et al. 2015 with the names of akamaster/pytorch_resnet_cifar10."""

import itertools

from torch import nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """He et al. 2015, figure 2 left, with the parameter-free shortcut (option A)."""

    def __init__(self, inputs: int, features: int, stride: int):
        super().__init__()
        self.stride, self.extra = stride, features - inputs
        self.conv1 = nn.Conv2d(inputs, features, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        before = self.extra // 2
        x = x[..., :: self.stride, :: self.stride]
        return (y + F.pad(x, (0, 0, 0, 0, before, self.extra - before))).relu()


class CifarResNet(nn.Module):
    """He et al. 2015, section 4.2, 6n + 2 layers."""

    def __init__(self, n: int, classes: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [16] + [16] * n + [32] * n + [64] * n
        blocks = [ResidualBlock(i, o, 1 + (i != o)) for i, o in itertools.pairwise(widths)]
        self.layer1 = nn.Sequential(*blocks[:n])
        self.layer2 = nn.Sequential(*blocks[n : 2 * n])
        self.layer3 = nn.Sequential(*blocks[2 * n :])
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))
