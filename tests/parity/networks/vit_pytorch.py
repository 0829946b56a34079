"""Dosovitskiy et al. 2020 with the names of early lucidrains/vit-pytorch."""

import torch
from torch import nn
from torch.nn import functional as F


class Normed(nn.Module):
    """A branch behind a layer norm."""

    def __init__(self, width: int, fn: nn.Module):
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(width), fn

    def forward(self, x):
        return x + self.fn(self.norm(x))


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int, head: int):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * heads * head, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head, width), nn.Dropout(0.0))

    def forward(self, x):
        split = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.to_out(F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        layers = nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.0), nn.Linear(hidden, width)
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)


class ViTPytorch(nn.Module):
    """Dosovitskiy et al. 2020 with the names of early lucidrains/vit-pytorch."""

    def __init__(self, classes: int, patch=4, width=64, depth=6, heads=4, head=64, hidden=128):
        super().__init__()
        self.patch = patch
        self.pos_embedding = nn.Parameter(torch.zeros(1, 50, width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.to_patch_embedding = nn.Sequential(nn.Identity(), nn.Linear(patch**2, width))
        self.transformer = nn.Module()
        self.transformer.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    Normed(width, SelfAttention(width, heads, head)),
                    Normed(width, Perceptron(width, hidden)),
                ]
            )
            for _ in range(depth)
        )
        self.mlp_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x):
        x = F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)  # one channel: rows, columns
        x = self.to_patch_embedding(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embedding
        for attention, perceptron in self.transformer.layers:
            x = perceptron(attention(x))
        return self.mlp_head(x[:, 0])
