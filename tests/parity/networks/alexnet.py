"""Krizhevsky et al. 2012, in which no package has the groups, with the names of torchvision's."""

import torch
from torch import nn


class PaperLRN(nn.Module):
    """Section 3.3: the constants k=2, n=5, alpha=1e-4 and beta=0.75, and alpha not divided by n."""

    def forward(self, x):
        channels = x.shape[1]
        near = torch.arange(channels)
        near = (near[:, None] - near).abs() <= 2
        total = torch.einsum("bchw,dc->bdhw", x**2, near.to(x.dtype))
        return x / (2 + 1e-4 * total) ** 0.75


class AlexNetGroups(nn.Module):
    def __init__(self, classes: int = 1000, hidden: int = 4096):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 96, 11, 4, 2), nn.ReLU()),
            nn.Sequential(PaperLRN(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU()),
            nn.Sequential(PaperLRN(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(256 * 36, hidden), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, classes),
        )

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))
