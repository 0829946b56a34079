"""DeconvNet in PyTorch, from the paper's table 2: VGG-16, two linear layers, and the mirror."""

import itertools

import torch
from torch import nn


class Unit(nn.Module):
    def __init__(self, i, o, size=3, padding=1):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(i, o, size, padding=padding), nn.BatchNorm2d(o)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


class Deunit(nn.Module):
    def __init__(self, i, o, size=3, padding=1):
        super().__init__()
        self.deconv, self.bn = nn.ConvTranspose2d(i, o, size, padding=padding), nn.BatchNorm2d(o)

    def forward(self, x):
        return torch.relu(self.bn(self.deconv(x)))


class DeconvNet(nn.Module):
    def __init__(
        self,
        classes=21,
        channels=(64, 128, 256, 512, 512),
        depths=(2, 2, 3, 3, 3),
        hidden=4096,
        window=7,
    ):
        super().__init__()
        self.stages = len(depths)
        before, below = [3, *channels], [channels[0], *channels]

        def units(kind, widths):
            return nn.ModuleList(kind(i, o) for i, o in itertools.pairwise(widths))

        for n, (width, depth) in enumerate(zip(channels, depths, strict=True)):
            convolutions = units(Unit, [before[n], *[width] * depth])
            transposed = units(Deunit, [*[width] * depth, below[n]])
            setattr(self, f"conv{n + 1}", convolutions)
            setattr(self, f"deconv{n + 1}", transposed)
        last = channels[-1]
        self.fc6, self.fc7 = Unit(last, hidden, window, 0), Unit(hidden, hidden, 1, 0)
        self.fc6_deconv = Deunit(hidden, last, window, 0)
        self.score = nn.Conv2d(channels[0], classes, 1)

    def forward(self, x):
        found = []
        for n in range(1, self.stages + 1):
            for unit in getattr(self, f"conv{n}"):
                x = unit(x)
            size = x.shape
            x, indices = nn.functional.max_pool2d(x, 2, return_indices=True)
            found.append((indices, size))
        x = self.fc6_deconv(self.fc7(self.fc6(x)))
        for n in range(self.stages, 0, -1):
            indices, size = found.pop()
            x = nn.functional.max_unpool2d(x, indices, 2, output_size=size)
            for unit in getattr(self, f"deconv{n}"):
                x = unit(x)
        return self.score(x)
