"""Yu and Koltun's front end and context module in PyTorch, from the paper."""

import numpy as np
import torch
from torch import nn

DILATIONS = (1, 1, 2, 4, 8, 16, 1)
CONTEXT = {"basic": (1, 1, 1, 1, 1, 1, 1, 1), "large": (2, 2, 4, 8, 16, 32, 32, 1)}


class DilatedVGG(nn.Module):
    def __init__(self, classes=21, context="", channels=(64, 128, 256, 512, 512), hidden=4096):
        super().__init__()
        before = 3
        for stage, (width, depth) in enumerate(zip(channels, (2, 2, 3, 3, 3), strict=True), 1):
            rate = 2 if stage == 5 else 1
            layers = nn.ModuleList()
            for _ in range(depth):
                layers.append(nn.Conv2d(before, width, 3, dilation=rate))
                before = width
            setattr(self, f"conv{stage}", layers)
        self.fc6 = nn.Conv2d(before, hidden, 7, dilation=4)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.drop = nn.Dropout()
        self.score = nn.Conv2d(hidden, classes, 1)
        widths = [classes, *(n * classes for n in CONTEXT.get(context, ()))]
        self.context = nn.ModuleList(
            nn.Conv2d(i, o, 3, dilation=rate)
            for i, o, rate in zip(widths, widths[1:], DILATIONS, strict=False)
        )
        if context:
            self.context.append(nn.Conv2d(widths[-2], classes, 1))

    def forward(self, image):
        height, width = image.shape[2:]
        rows, columns = (
            np.pad(np.arange(n), (186, 186 + -n % 8), "reflect") for n in (height, width)
        )
        x = image[:, :, rows][:, :, :, columns]
        for stage in range(1, 6):
            for layer in getattr(self, f"conv{stage}"):
                x = torch.relu(layer(x))
            if stage < 4:
                x = nn.functional.max_pool2d(x, 2)
        x = self.drop(torch.relu(self.fc6(x)))
        x = self.score(self.drop(torch.relu(self.fc7(x))))
        if self.context:
            x = nn.functional.pad(x, (33, 33, 33, 33))
            *hidden, last = self.context
            for layer in hidden:
                x = torch.relu(layer(x))
            x = last(x)
        x = nn.functional.interpolate(x, scale_factor=8, mode="bilinear")
        return x[:, :, :height, :width]
