"""Stacked hourglasses (Newell et al. 2016) in the form of pytorch-pose, of any width and depth."""

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    def __init__(self, channels: int, features: int):
        super().__init__()
        half = features // 2
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, half, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(half), nn.Conv2d(half, half, 3, padding=1)
        self.bn3, self.conv3 = nn.BatchNorm2d(half), nn.Conv2d(half, features, 1)
        if channels != features:
            self.downsample = nn.Sequential(nn.Conv2d(channels, features, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.relu(self.bn1(x)))
        y = self.conv2(F.relu(self.bn2(y)))
        y = self.conv3(F.relu(self.bn3(y)))
        return y + (self.downsample(x) if hasattr(self, "downsample") else x)


def residuals(channels: int, features: int, count: int) -> nn.Sequential:
    return nn.Sequential(*[Residual(features if i else channels, features) for i in range(count)])


class Hourglass(nn.Module):
    """`hg[0]` is the innermost level; its fourth part is the bottom."""

    def __init__(self, features: int, blocks: int, depth: int):
        super().__init__()
        self.hg = nn.ModuleList(
            nn.ModuleList(residuals(features, features, blocks) for _ in range(3 + (level == 0)))
            for level in range(depth)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.through(len(self.hg) - 1, x)

    def through(self, level: int, x: torch.Tensor) -> torch.Tensor:
        beside, down, up, *bottom = self.hg[level]
        y = down(F.max_pool2d(x, 2))
        y = bottom[0](y) if level == 0 else self.through(level - 1, y)
        return beside(x) + F.interpolate(up(y), scale_factor=2)


class HourglassNet(nn.Module):
    """Gives the heat maps of all stacks, as a list."""

    def __init__(
        self, classes: int, stacks: int = 2, features: int = 256, blocks: int = 1, depth: int = 4
    ):
        super().__init__()
        stem = features // 4
        self.conv1, self.bn1 = nn.Conv2d(3, stem, 7, 2, 3), nn.BatchNorm2d(stem)
        self.layer1 = residuals(stem, features // 2, 1)
        self.layer2 = residuals(features // 2, features, 1)
        self.layer3 = residuals(features, features, 1)

        def each(make, count: int = stacks) -> nn.ModuleList:
            return nn.ModuleList(make() for _ in range(count))

        def linear() -> nn.Conv2d:
            return nn.Conv2d(features, features, 1)

        self.hg = each(lambda: Hourglass(features, blocks, depth))
        self.res = each(lambda: residuals(features, features, blocks))
        self.fc = each(lambda: nn.Sequential(linear(), nn.BatchNorm2d(features), nn.ReLU()))
        self.score = each(lambda: nn.Conv2d(features, classes, 1))
        self.fc_ = each(linear, stacks - 1)
        self.score_ = each(lambda: nn.Conv2d(classes, features, 1), stacks - 1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.layer1(F.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(F.max_pool2d(x, 2)))
        found = []
        for stack, (hourglass, after, fc, score) in enumerate(
            zip(self.hg, self.res, self.fc, self.score)
        ):
            y = fc(after(hourglass(x)))
            found.append(score(y))
            if stack < len(self.fc_):
                x = x + self.fc_[stack](y) + self.score_[stack](found[-1])
        return found
