"""A convolutional autoencoder in PyTorch, also with classes for pixels."""

import itertools

import torch
from torch import nn


class Layer(nn.Module):
    def __init__(self, i, o, transposed=False):
        super().__init__()
        if transposed:
            self.deconv = nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False)
        else:
            self.conv = nn.Conv2d(i, o, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(o)

    def forward(self, x):
        layer = self.deconv if hasattr(self, "deconv") else self.conv
        return torch.relu(self.bn(layer(x)))


class Autoencoder(nn.Module):
    def __init__(self, classes, widths=(32, 64, 128), latent=0, size=(64, 64), channels=3):
        super().__init__()
        down = [channels, *widths]
        up = [*widths[::-1], widths[0]]
        self.encoder = nn.ModuleList(Layer(i, o) for i, o in itertools.pairwise(down))
        self.decoder = nn.ModuleList(Layer(i, o, True) for i, o in itertools.pairwise(up))
        self.shape = (widths[-1], *(n // 2 ** len(widths) for n in size))
        self.latent = latent
        if latent:
            flat = self.shape[0] * self.shape[1] * self.shape[2]
            self.bottleneck, self.expand = nn.Linear(flat, latent), nn.Linear(latent, flat)
        if classes:
            self.score = nn.Conv2d(widths[0], classes, 3, padding=1)
        else:
            self.image = nn.Conv2d(widths[0], channels, 3, padding=1)

    def forward(self, x):
        for layer in self.encoder:
            x = layer(x)
        if self.latent:
            x = torch.relu(self.expand(self.bottleneck(x.flatten(1)))).unflatten(1, self.shape)
        for layer in self.decoder:
            x = layer(x)
        return self.score(x) if hasattr(self, "score") else self.image(x)
