"""The projection head of DINO in PyTorch, as in facebookresearch/dino: the same names."""

import torch
from torch import nn
from torch.nn import functional


class DinoHead(nn.Module):
    def __init__(self, inputs, features, hidden, bottleneck, norm):
        super().__init__()
        layers = []
        for width in (inputs, hidden):
            layers.append(nn.Linear(width, hidden))
            # Statistics of the batch alone, so that there is nothing to keep.
            layers += [nn.BatchNorm1d(hidden, track_running_stats=False)] if norm else []
            layers.append(nn.GELU())
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        self.last_layer = nn.Module()
        self.last_layer.weight_v = nn.Parameter(torch.zeros(features, bottleneck))

    def forward(self, x):
        x = functional.normalize(self.mlp(x), dim=-1)
        return x @ functional.normalize(self.last_layer.weight_v, dim=1).T
