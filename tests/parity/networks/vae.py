"""VAEs and autoencoders in PyTorch.

`VAE` is that of pytorch/examples/vae. `ConvVAE` and `ConvAE` are pythae's with the layers of its
benchmarks on MNIST (`Encoder_Conv_VAE_MNIST`, `Encoder_Conv_AE_MNIST`, `Decoder_Conv_AE_MNIST`),
here for square images of any size and with any widths.
"""

import torch
import torch.nn.functional as F
from torch import nn


class VAE(nn.Module):
    def __init__(self, pixels=784, hidden=400, latent=20):
        super().__init__()
        self.fc1 = nn.Linear(pixels, hidden)
        self.fc21 = nn.Linear(hidden, latent)
        self.fc22 = nn.Linear(hidden, latent)
        self.fc3 = nn.Linear(latent, hidden)
        self.fc4 = nn.Linear(hidden, pixels)

    def encode(self, x):
        h1 = F.relu(self.fc1(x.flatten(1)))
        return self.fc21(h1), self.fc22(h1)

    def decode(self, z):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))


class ConvEncoder(nn.Module):
    def __init__(self, channels, widths, latent, size, variational):
        super().__init__()
        layers, inputs = [], channels
        for width in widths:
            convolution = nn.Conv2d(inputs, width, 4, 2, padding=1)
            layers.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU()))
            inputs, size = width, size // 2
        self.layers = nn.ModuleList(layers)
        self.embedding = nn.Linear(inputs * size * size, latent)
        if variational:
            self.log_var = nn.Linear(inputs * size * size, latent)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        x = x.flatten(1)
        heads = [self.embedding, getattr(self, "log_var", None)]
        return [head(x) for head in heads if head is not None]


class ConvDecoder(nn.Module):
    def __init__(self, channels, widths, latent, size):
        super().__init__()
        sizes = [size]
        for _ in widths[1:]:
            sizes.append((sizes[-1] + 1) // 2)
        self.start = (widths[-1], sizes[-1], sizes[-1])
        layers = [nn.Linear(latent, widths[-1] * sizes[-1] ** 2)]
        inputs, outputs = widths[-1], [*widths[-2:0:-1], channels]
        for target, width in zip(sizes[-2::-1], outputs, strict=True):
            more = 1 - target % 2
            convolution = nn.ConvTranspose2d(inputs, width, 3, 2, 1, output_padding=more)
            layers.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU()))
            inputs = width
        layers[-1] = nn.Sequential(convolution, nn.Sigmoid())
        self.layers = nn.ModuleList(layers)

    def forward(self, z):
        x = self.layers[0](z).unflatten(1, self.start)
        for layer in self.layers[1:]:
            x = layer(x)
        return x


class ConvVAE(nn.Module):
    VARIATIONAL = True

    def __init__(self, channels=1, widths=(128, 256, 512, 1024), latent=16, size=28):
        super().__init__()
        self.encoder = ConvEncoder(channels, widths, latent, size, self.VARIATIONAL)
        self.decoder = ConvDecoder(channels, widths, latent, size)

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)


class ConvAE(ConvVAE):
    VARIATIONAL = False
