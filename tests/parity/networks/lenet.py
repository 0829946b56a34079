"""LeCun et al. 1998: with the names of mmpretrain's LeNet5, and as in the paper."""

import torch
from torch import nn
from torch.nn import functional

# Table I, row by row: X where the map of C3 (column) is connected to that of S2 (row).
_TABLE = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


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


class SubSampling(nn.Module):
    """A coefficient and a bias for each map."""

    def __init__(self, maps: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(maps)), nn.Parameter(torch.zeros(maps))

    def forward(self, x):
        sums = x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]
        return sums * self.weight[:, None, None] + self.bias[:, None, None]


class SparseConv(nn.Module):
    """A convolution whose kernel is zero where there is no connection."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.ones(60, 1, 5, 5)),
            nn.Parameter(torch.zeros(16)),
        )

    def forward(self, x):
        rows = _TABLE.split()
        connected = torch.tensor([[row[column] == "X" for row in rows] for column in range(16)])
        kernel = self.weight.new_zeros(16, 6, 5, 5)
        kernel[connected] = self.weight[:, 0]
        return functional.conv2d(x, kernel, self.bias)


class ScaledTanh(nn.Module):
    """f(a) = A tanh(S a), A = 1.7159, S = 2/3."""

    def forward(self, x):
        return 1.7159 * (x * 2 / 3).tanh()


class LeNet5Sparse(nn.Module):
    """LeCun et al. 1998, section II-B; the output is that of the RBF units, negated."""

    def __init__(self, bitmaps):
        super().__init__()
        self.c1, self.s2, self.c3, self.s4 = (
            *(nn.Conv2d(1, 6, 5), SubSampling(6)),
            *(SparseConv(), SubSampling(16)),
        )
        self.c5, self.f6, self.act = nn.Conv2d(16, 120, 5), nn.Linear(120, 84), ScaledTanh()
        self.register_buffer("bitmaps", torch.as_tensor(bitmaps), persistent=False)

    def forward(self, x):
        for layer in (self.c1, self.s2, self.c3, self.s4, self.c5):
            x = self.act(layer(x))
        x = self.act(self.f6(x.flatten(1)))
        return -((x[:, None] - self.bitmaps) ** 2).sum(-1)
