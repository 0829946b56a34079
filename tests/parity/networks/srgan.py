"""SRGAN's discriminator in PyTorch, without the last sigmoid."""

from torch import nn


class Discriminator(nn.Module):
    def __init__(self, size=96, channels=3, width=64, hidden=1024):
        super().__init__()
        layers, inputs = [], channels
        for times in (1, 2, 4, 8):
            for stride in (1, 2):
                layers.append(nn.Conv2d(inputs, times * width, 3, stride, 1))
                inputs = times * width
                if len(layers) > 1:
                    layers.append(nn.BatchNorm2d(inputs))
                layers.append(nn.LeakyReLU(0.2))
        self.features = nn.Sequential(*layers)
        side = size
        for _ in range(4):
            side = (side + 1) // 2
        self.classifier = nn.Sequential(
            nn.Linear(inputs * side * side, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)
        )

    def forward(self, image):
        return self.classifier(self.features(image).flatten(1))[:, 0]
