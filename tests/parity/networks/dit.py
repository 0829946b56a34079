"""DiT in PyTorch, from Peebles and Xie 2022, section 3.2 and appendix A.

Modules are named as in the authors' code, so that state_dicts are theirs.
"""

import math

import torch
from torch import nn


def waves(places, channels, cosines_first):
    """Sines and cosines of places [n] at `channels` / 2 frequencies from 1 down to above 1e-4."""
    half = channels // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float64) / half)
    angles = places.double()[:, None] * rates
    halves = (angles.cos(), angles.sin()) if cosines_first else (angles.sin(), angles.cos())
    return torch.cat(halves, 1)


def positions(side, width):
    """Of a square of patches, row by row: half of the channels tell the column, half the row."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    parts = [waves(places.flatten(), width // 2, False) for places in (columns, rows)]
    return torch.cat(parts, 1).float()[None]


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = parts
        weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x), approximate="tanh"))


class AdaptiveNorm(nn.Module):
    """Layer norm without parameters, scaled and shifted by the condition."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)

    def forward(self, x, shift, scale):
        return self.norm(x) * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    def __init__(self, width, heads, ratio):
        super().__init__()
        self.norm1, self.norm2 = AdaptiveNorm(width), AdaptiveNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = Mlp(width, int(width * ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x, condition):
        modulation = self.adaLN_modulation(condition).chunk(6, 1)
        shift, scale, gate = modulation[:3]
        x = x + gate[:, None] * self.attn(self.norm1(x, shift, scale))
        shift, scale, gate = modulation[3:]
        return x + gate[:, None] * self.mlp(self.norm2(x, shift, scale))


class FinalLayer(nn.Module):
    def __init__(self, width, features):
        super().__init__()
        self.norm_final = AdaptiveNorm(width)
        self.linear = nn.Linear(width, features)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x, condition):
        shift, scale = self.adaLN_modulation(condition).chunk(2, 1)
        return self.linear(self.norm_final(x, shift, scale))


class PatchEmbed(nn.Module):
    def __init__(self, channels, width, patch):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class TimeEmbedder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timestep):
        return self.mlp(waves(timestep, 256, True).to(self.mlp[0].weight.dtype))


class LabelEmbedder(nn.Module):
    """The last row is that of no class."""

    def __init__(self, classes, width):
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, label):
        return self.embedding_table(label)


class DiT(nn.Module):
    def __init__(
        self, size=32, patch=2, channels=4, width=1152, depth=28, heads=16, ratio=4.0,
        classes=1000, out_channels=8,
    ):  # fmt: skip
        super().__init__()
        self.patch, self.out_channels = patch, out_channels
        self.x_embedder = PatchEmbed(channels, width, patch)
        self.t_embedder = TimeEmbedder(width)
        self.y_embedder = LabelEmbedder(classes, width) if classes else None
        self.pos_embed = nn.Parameter(positions(size // patch, width), requires_grad=False)
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))
        self.final_layer = FinalLayer(width, patch**2 * out_channels)

    def forward(self, x, timestep, label=None):
        batch, _, height, width = x.shape
        condition = self.t_embedder(timestep)
        if self.y_embedder is not None:
            condition = condition + self.y_embedder(label)
        x = self.x_embedder(x) + self.pos_embed
        for block in self.blocks:
            x = block(x, condition)
        rows, columns = height // self.patch, width // self.patch
        x = self.final_layer(x, condition)
        x = x.reshape(batch, rows, columns, self.patch, self.patch, self.out_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, self.out_channels, height, width)
