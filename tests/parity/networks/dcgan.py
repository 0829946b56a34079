"""DCGAN in PyTorch; at 64 pixels that of pytorch/examples, without the last sigmoid."""

import math

from torch import nn


def doublings(size):
    start = 4 if math.log2(size / 4) % 1 == 0 else 7
    return start, int(math.log2(size / start))


class Generator(nn.Module):
    def __init__(self, size=64, channels=3, latent=100, width=64):
        super().__init__()
        start, times = doublings(size)
        layers, inputs = [], latent
        for index in range(times):
            outputs = width * 2 ** (times - 1 - index)
            form = (start, 1, 0) if index == 0 else (4, 2, 1)
            layers += [
                nn.ConvTranspose2d(inputs, outputs, *form, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
            inputs = outputs
        layers += [nn.ConvTranspose2d(inputs, channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, latent):
        return self.main(latent[:, :, None, None])


class Discriminator(nn.Module):
    def __init__(self, size=64, channels=3, width=64):
        super().__init__()
        start, times = doublings(size)
        layers, inputs = [], channels
        for index in range(times):
            outputs = width * 2**index
            layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False))
            layers += [nn.BatchNorm2d(outputs)] if index else []
            layers.append(nn.LeakyReLU(0.2))
            inputs = outputs
        layers.append(nn.Conv2d(inputs, 1, start, 1, 0, bias=False))
        self.main = nn.Sequential(*layers)

    def forward(self, image):
        return self.main(image)[:, 0, 0, 0]
