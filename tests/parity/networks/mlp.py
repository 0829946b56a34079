"""An MLP on images."""

from torch import nn


class FlatMLP(nn.Sequential):
    """Its layers keep their indices, as names, behind a flattening that has none."""

    def __init__(self, mlp: nn.Sequential):
        super().__init__(*mlp)

    def forward(self, x):
        return super().forward(x.flatten(1))
