"""V-Net of MONAI's parts with any number of halvings and any width."""

from monai.networks.nets.vnet import (
    DownTransition,
    InputTransition,
    OutputTransition,
    UpTransition,
)
from torch import nn


class VNet(nn.Module):
    def __init__(self, classes, width, depths, up_depths, act="elu"):
        super().__init__()
        self.levels = len(up_depths)
        self.in_tr = InputTransition(3, 1, width, act)
        for level, depth in enumerate(depths[1:], start=1):
            drop = 0.5 if level > self.levels - 2 else None
            down = DownTransition(3, width * 2 ** (level - 1), depth, act, drop)
            setattr(self, f"down_tr{16 * 2**level}", down)
        below = 2**self.levels
        for index, depth in enumerate(up_depths):
            level = self.levels - index
            drops = (0.5 if index < 2 else None, 0.5)
            up = UpTransition(3, width * below, width * 2**level, depth, act, drops)
            setattr(self, f"up_tr{16 * 2**level}", up)
            below = 2**level
        self.out_tr = OutputTransition(3, 2 * width, classes, act)

    def forward(self, x):
        x, skips = self.in_tr(x), []
        for level in range(1, self.levels + 1):
            skips.append(x)
            x = getattr(self, f"down_tr{16 * 2**level}")(x)
        for level in range(self.levels, 0, -1):
            x = getattr(self, f"up_tr{16 * 2**level}")(x, skips.pop())
        return self.out_tr(x)
