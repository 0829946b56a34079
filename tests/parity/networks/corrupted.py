"""Autoencoders of corrupted images in PyTorch: an encoder's last map, made an image again."""

import itertools

import torch
from torch import nn


class Mix(nn.Module):
    """From all places of a channel to all places of the same channel."""

    def __init__(self, channels: int, places: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, places, places) * places**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bcp,cpq->bcq", x.flatten(2), self.weight).reshape(x.shape)


class UpDecoder(nn.Module):
    def __init__(self, inputs: int, steps: int, width: int, channels: int):
        super().__init__()
        widths = [inputs, *(min(512, width * 2**step) for step in reversed(range(steps)))]
        pairs = list(itertools.pairwise(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False) for a, b in pairs)
        self.norm = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs)
        self.pixels = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, x: torch.Tensor, size: torch.Size) -> torch.Tensor:
        for up, norm in zip(self.up, self.norm):
            x = torch.relu(norm(up(x)))
        return self.pixels(x)[..., : size[0], : size[1]]


class DenoisingAutoencoder(nn.Module):
    """The encoder is a ResNet of torchvision; its classifier goes."""

    def __init__(self, encoder: nn.Module, width: int, places: int = 0):
        super().__init__()
        del encoder.fc
        self.encoder = encoder
        self.mix = Mix(512, places) if places else nn.Identity()
        self.decoder = UpDecoder(512, 5, width, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        own = self.encoder
        x = own.maxpool(own.relu(own.bn1(own.conv1(image))))
        x = own.layer4(own.layer3(own.layer2(own.layer1(x))))
        return self.decoder(self.mix(x), image.shape[2:])


class ContextEncoder(DenoisingAutoencoder):
    """The same, with its last map mixed, of so many places."""
