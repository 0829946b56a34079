"""LeCun et al. 1998 with the names of mmpretrain's LeNet5."""

from torch import nn


class LeNet5(nn.Module):
    """LeCun et al. 1998 with the names of mmpretrain's LeNet5."""

    def __init__(self, classes: int):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)),
            *(nn.Conv2d(16, 120, 5), nn.Tanh()),
        )
        self.classifier = nn.Sequential(nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, classes))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))
