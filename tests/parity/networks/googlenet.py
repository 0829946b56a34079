"""Szegedy et al. 2014, which no package has without batch norm, with the names of torchvision's."""

import torch
from torch import nn


class Conv(nn.Module):
    def __init__(self, *shape, **options):
        super().__init__()
        self.conv = nn.Conv2d(*shape, **options)

    def forward(self, x):
        return self.conv(x).relu()


class Inception(nn.Module):
    def __init__(self, channels, one, reduced3, three, reduced5, five, projection):
        super().__init__()
        self.branch1 = Conv(channels, one, 1)
        self.branch2 = nn.Sequential(
            Conv(channels, reduced3, 1), Conv(reduced3, three, 3, padding=1)
        )
        self.branch3 = nn.Sequential(
            Conv(channels, reduced5, 1), Conv(reduced5, five, 5, padding=2)
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), Conv(channels, projection, 1))

    def forward(self, x):
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x) for branch in branches], 1)


class Auxiliary(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.pool = nn.Sequential(nn.AvgPool2d(5, 3), nn.AdaptiveAvgPool2d(4))
        self.conv = Conv(channels, 128, 1)
        self.fc1, self.fc2 = nn.Linear(2048, 1024), nn.Linear(1024, classes)
        self.dropout = nn.Dropout(0.7)

    def forward(self, x):
        x = self.conv(self.pool(x)).flatten(1)
        return self.fc2(self.dropout(self.fc1(x).relu()))


class GoogLeNet(nn.Module):
    """Table 1 of the paper; the constants of the normalisation are those of BVLC's Caffe model."""

    def __init__(self, classes=1000, aux_logits=True):
        super().__init__()
        self.conv1, self.conv2 = Conv(3, 64, 7, stride=2, padding=3), Conv(64, 64, 1)
        self.conv3 = Conv(64, 192, 3, padding=1)
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128)
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128)
        if aux_logits:
            self.aux1, self.aux2 = Auxiliary(512, classes), Auxiliary(528, classes)
        self.aux_logits = aux_logits
        self.dropout, self.fc = nn.Dropout(0.4), nn.Linear(1024, classes)

    def forward(self, x):
        x = self.norm(self.pool(self.conv1(x)))
        x = self.pool(self.norm(self.conv3(self.conv2(x))))
        x = self.pool(self.inception3b(self.inception3a(x)))
        fourth = self.inception4a(x)
        late = self.inception4d(self.inception4c(self.inception4b(fourth)))
        x = self.pool(self.inception4e(late))
        x = self.inception5b(self.inception5a(x))
        x = self.fc(self.dropout(x.mean((2, 3))))
        if self.training and self.aux_logits:
            return x, self.aux2(late), self.aux1(fourth)  # in torchvision's order
        return x
