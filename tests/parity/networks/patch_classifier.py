"""Farabet et al.'s network of one scale in PyTorch, run on the patch around each pixel."""

import torch
from torch import nn


class PatchClassifier(nn.Module):
    def __init__(self, classes, widths=(16, 64, 256), hidden=1024):
        super().__init__()
        a, b, c = widths
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(i, o, 7) for i, o in ((3, a), (a, b), (b, c))
        )
        self.fc1, self.fc2 = nn.Conv2d(c, hidden, 1), nn.Conv2d(hidden, classes, 1)

    def patch(self, x):
        for layer in (self.conv1, self.conv2):
            x = nn.functional.max_pool2d(torch.tanh(layer(x)), 2)
        return self.fc2(torch.tanh(self.fc1(self.conv3(x))))

    def forward(self, image):
        _, channels, height, width = image.shape
        image = nn.functional.pad(image, (23, 22, 23, 22))
        patches = nn.functional.unfold(image, 46).mT.reshape(-1, channels, 46, 46)
        return self.patch(patches).reshape(len(image), height, width, -1).movedim(-1, 1)
