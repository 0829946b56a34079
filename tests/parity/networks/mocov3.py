"""The heads of MoCo v3 in PyTorch, as in facebookresearch/moco-v3, whose layers are `layers`."""

from itertools import pairwise

from torch import nn


class Projection(nn.Module):
    def __init__(self, inputs, layers, hidden, features):
        super().__init__()
        widths = [inputs, *[hidden] * (layers - 1), features]
        modules = []
        for index, (a, b) in enumerate(pairwise(widths)):
            last = index == layers - 1
            modules.append(nn.Linear(a, b, bias=False))
            modules.append(nn.BatchNorm1d(b, affine=not last, track_running_stats=False))
            modules += [] if last else [nn.ReLU()]
        self.layers = nn.Sequential(*modules)

    def forward(self, x):
        return self.layers(x)
