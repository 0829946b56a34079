"""Sabour et al. 2017, figures 1 and 2 and procedure 1, for 28x28 images."""

import torch
from torch import nn


def squash(s):
    """Equation 1."""
    squared = (s * s).sum(-1, keepdim=True)
    return squared / (1 + squared) * s / squared.sqrt()


class DigitCaps(nn.Module):
    """The matrices of equation 2 and three iterations of routing."""

    def __init__(self, below: int, classes: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(below, classes, 8, 16) / 10)

    def forward(self, u):
        votes = torch.matmul(u[:, :, None, None], self.weight)[:, :, :, 0]
        b = votes.new_zeros(votes.shape[:3])
        for _ in range(3):
            c = b.softmax(2)
            v = squash((c[..., None] * votes).sum(1))
            b = b + (votes * v[:, None]).sum(-1)
        return v


class CapsNet(nn.Module):
    """Gives the capsules' lengths; keeps the reconstruction from the longest."""

    def __init__(self, classes: int, width: int, types: int, decoder: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 9)
        self.primary = nn.Conv2d(width, types * 8, 9, 2)
        self.digit_caps = DigitCaps(types * 36, classes)
        if decoder:
            self.decoder = nn.Sequential(
                *(nn.Linear(16 * classes, 512), nn.ReLU(), nn.Linear(512, 1024), nn.ReLU()),
                *(nn.Linear(1024, 784), nn.Sigmoid()),
            )

    def forward(self, x):
        u = self.primary(self.conv1(x).relu()).unflatten(1, (-1, 8))  # [b, type, 8, row, column]
        v = self.digit_caps(squash(u.permute(0, 1, 3, 4, 2).flatten(1, 3)))
        lengths = v.norm(dim=-1)
        if hasattr(self, "decoder"):
            longest = nn.functional.one_hot(lengths.argmax(1), lengths.shape[1])
            self.reconstruction = self.decoder((v * longest[..., None]).flatten(1))
        return lengths
