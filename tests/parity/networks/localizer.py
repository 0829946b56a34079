"""A class head and a box head on the last map of a ResNet for small images, in PyTorch."""

import torch
from parity.networks.resnet_cifar import CifarResNet
from torch import nn


class Maps(CifarResNet):
    """The network without its classifier."""

    def __init__(self, n):
        super().__init__(n, 1)
        del self.linear

    def forward(self, x):
        return self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))


def head(inputs, hidden, outputs):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class Localizer(nn.Module):
    def __init__(self, classes, size=32, n=3, hidden=256):
        super().__init__()
        self.encoder = Maps(n)
        inputs = 64 * (size // 4) ** 2
        self.class_head, self.box_head = nn.Linear(64, classes), head(inputs, hidden, 4)

    def forward(self, image):
        # Places before channels, as arrays lie whose channels come last.
        x = self.encoder(image)
        box = self.box_head(x.permute(0, 2, 3, 1).flatten(1))
        return torch.cat([self.class_head(x.mean((2, 3))), box], 1)
