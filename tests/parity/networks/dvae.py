"""The discrete VAE of DALL-E (Ramesh et al. 2021, https://arxiv.org/abs/2102.12092).

The encoder and decoder of github.com/openai/DALL-E (dall_e/encoder.py, decoder.py) of any size, by
the names that transformers' `FlavaImageCodebook` gives the encoder's layers.
"""

from collections import OrderedDict

import torch
from torch import nn


class Path(nn.Module):
    def __init__(self, features: int, width: int, kernels: tuple[int, ...]):
        super().__init__()
        inside, layers = width // 4, OrderedDict()
        sizes = [features, inside, inside, inside, width]
        for number, kernel in enumerate(kernels, start=1):
            layers[f"relu_{number}"] = nn.ReLU()
            layers[f"conv_{number}"] = nn.Conv2d(
                sizes[number - 1], sizes[number], kernel, padding=kernel // 2
            )
        self.path = nn.Sequential(layers)

    def forward(self, x):
        return self.path(x)


class Block(nn.Module):
    def __init__(self, features: int, width: int, layers: int, kernels: tuple[int, ...]):
        super().__init__()
        self.post_gain = 1 / layers**2
        self.id_path = nn.Identity() if features == width else nn.Conv2d(features, width, 1)
        self.res_path = Path(features, width, kernels)

    def forward(self, x):
        return self.id_path(x) + self.post_gain * self.res_path(x)


class Group(nn.Module):
    def __init__(self, features, width, blocks, layers, kernels, last):
        super().__init__()
        found = OrderedDict()
        for number in range(1, blocks + 1):
            found[f"block_{number}"] = Block(
                features if number == 1 else width, width, layers, kernels
            )
        if last is not None:
            found["resampling"] = last
        self.group = nn.Sequential(found)

    def forward(self, x):
        return self.group(x)


class Half(nn.Module):
    """The encoder or the decoder: a convolution, groups of blocks, ReLU and a 1x1 convolution."""

    def __init__(self, first, widths, blocks, kernels, resampling, features):
        super().__init__()
        layers, found = len(widths) * blocks, OrderedDict(input=first)
        before = first.out_channels
        for number, width in enumerate(widths, start=1):
            last = resampling if number < len(widths) else None
            found[f"group_{number}"] = Group(before, width, blocks, layers, kernels, last)
            before = width
        output = OrderedDict(relu=nn.ReLU(), conv=nn.Conv2d(before, features, 1))
        found["output"] = nn.Sequential(output)
        self.blocks = nn.Sequential(found)

    def forward(self, x):
        return self.blocks(x)


class DVAE(nn.Module):
    def __init__(
        self, channels=3, hidden=256, groups=4, blocks=2, codes=8192, width=128, scales=False
    ):
        super().__init__()
        widths = [hidden * 2**index for index in range(groups)]
        self.codes = codes
        self.encoder = Half(
            nn.Conv2d(channels, hidden, 7, padding=3),
            widths,
            blocks,
            (3, 3, 3, 1),
            nn.MaxPool2d(2),
            codes,
        )
        self.decoder = Half(
            nn.Conv2d(codes, width, 1),
            widths[::-1],
            blocks,
            (1, 3, 3, 3),
            nn.Upsample(scale_factor=2, mode="nearest"),
            channels * (1 + scales),
        )

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of images from 0 to 1."""
        return self.encoder(0.8 * x + 0.1)

    def hard(self, logits: torch.Tensor) -> torch.Tensor:
        """The likeliest entries."""
        found = nn.functional.one_hot(logits.argmax(1), self.codes)
        return found.permute(0, 3, 1, 2).to(logits.dtype)
