"""The PyTorch networks that ours are equal to: packages where there are any, else written here.

The ones here were written from the papers; of the repositories whose weights they load they share
only the names of the parameters.
"""

import itertools
import sys

import torch
from parity.cases import Case
from torch import nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """He et al. 2015, figure 2 left, with the parameter-free shortcut (option A)."""

    def __init__(self, inputs: int, features: int, stride: int):
        super().__init__()
        self.stride, self.extra = stride, features - inputs
        self.conv1 = nn.Conv2d(inputs, features, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        before = self.extra // 2
        x = x[..., :: self.stride, :: self.stride]
        return (y + F.pad(x, (0, 0, 0, 0, before, self.extra - before))).relu()


class CifarResNet(nn.Module):
    """He et al. 2015, section 4.2, 6n + 2 layers."""

    def __init__(self, n: int, classes: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [16] + [16] * n + [32] * n + [64] * n
        blocks = [ResidualBlock(i, o, 1 + (i != o)) for i, o in itertools.pairwise(widths)]
        self.layer1 = nn.Sequential(*blocks[:n])
        self.layer2 = nn.Sequential(*blocks[n : 2 * n])
        self.layer3 = nn.Sequential(*blocks[2 * n :])
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


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


def _torchvision():
    """The package; its compiled part does not load beside a CPU build of torch (vision#9085)."""
    try:
        import torchvision
    except RuntimeError:
        for name in [n for n in sys.modules if n.startswith("torchvision")]:
            del sys.modules[name]
        _torchvision.operators = operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou) -> Tensor")
        import torchvision
    return torchvision


def build(name: str, case: Case) -> nn.Module:
    """The reference of a variant."""
    channels = case.image[1]
    if name.startswith("mlp"):
        hidden = [256, 256] if name == "mlp_256x2" else [100]
        mlp = _torchvision().ops.MLP
        return FlatMLP(mlp(channels * case.image[2] * case.image[3], [*hidden, case.classes]))
    if name == "lenet5":
        return LeNet5(case.classes)
    if name.startswith("resnet"):
        depth = int(name.removeprefix("resnet").removesuffix("_cifar"))
        return CifarResNet((depth - 2) // 6, case.classes)
    if name == "vit_mnist":
        return ViTPytorch(case.classes)
    if name.startswith("vit"):
        _torchvision()
        import timm

        size = {"img_size": case.image[2:], "num_classes": case.classes}
        return timm.create_model(name, **size, **case.options)
    if name.startswith("unet"):
        from unet import UNet

        form = {"padding": 0} if name == "unet_valid" else {"normalization": "batch", "padding": 1}
        blocks, width = case.options["depth"] + 1, case.options["width"]
        return UNet(channels, case.classes, 2, blocks, width, **form)
    raise KeyError(name)


class FlatMLP(nn.Sequential):
    """Its layers keep their indices, as names, behind a flattening that has none."""

    def __init__(self, mlp: nn.Sequential):
        super().__init__(*mlp)

    def forward(self, x):
        return super().forward(x.flatten(1))
