"""FastestDet in PyTorch, by the names of its author's modules, with its losses.

Written from github.com/dog-qiuqiu/FastestDet (BSD 3-clause). Where several objects train one cell
the author keeps what is written last; cases have no such cell.
"""

import math

import torch
from torch import nn


def conv(features: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(features, out, kernel, stride, kernel // 2, groups=groups, bias=False)


def layers(*parts: tuple) -> nn.Sequential:
    """Convolutions with a norm each; (convolution, whether a ReLU follows)."""
    found: list[nn.Module] = []
    for layer, relu in parts:
        found += [layer, nn.BatchNorm2d(layer.out_channels)]
        if relu:
            found.append(nn.ReLU())
    return nn.Sequential(*found)


class Unit(nn.Module):
    def __init__(self, features: int, out: int, down: bool):
        super().__init__()
        self.down, stride, half = down, 2 if down else 1, out // 2
        inner = features if down else features // 2
        self.branch_main = layers(
            (conv(inner, half, 1), True),
            (conv(half, half, 3, stride, half), False),
            (conv(half, out - inner, 1), True),
        )
        if down:
            self.branch_proj = layers(
                (conv(inner, inner, 3, 2, inner), False), (conv(inner, inner, 1), True)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = (self.branch_proj(x), x) if self.down else (x[:, ::2], x[:, 1::2])
        return torch.cat([left, self.branch_main(right)], 1)


class Trunk(nn.Module):
    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...]):
        super().__init__()
        self.first_conv = layers((conv(3, widths[0], 3, 2), True))
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        before = widths[0]
        for stage, (width, depth) in enumerate(zip(widths[1:], depths), start=2):
            units = [Unit(before if k == 0 else width, width, k == 0) for k in range(depth)]
            setattr(self, f"stage{stage}", nn.Sequential(*units))
            before = width

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.maxpool(self.first_conv(x))
        maps = []
        for name in ("stage2", "stage3", "stage4"):
            x = getattr(self, name)(x)
            maps.append(x)
        return maps


class Pointwise(nn.Module):
    def __init__(self, features: int, out: int):
        super().__init__()
        self.conv1x1 = layers((conv(features, out, 1), True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv1x1(x)


class Pooling(nn.Module):
    def __init__(self, features: int, out: int):
        super().__init__()
        self.Conv1x1 = Pointwise(features, out)
        for length in (1, 2, 3):
            chain = [(conv(out, out, 5, groups=out), True) for _ in range(length)]
            setattr(self, f"S{length}", layers(*chain))
        self.output = layers((conv(3 * out, out, 1), False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.Conv1x1(x)
        return torch.relu(x + self.output(torch.cat([self.S1(x), self.S2(x), self.S3(x)], 1)))


class Head(nn.Module):
    def __init__(self, features: int, out: int):
        super().__init__()
        self.conv5x5 = layers(
            (conv(features, features, 5, groups=features), True), (conv(features, out, 1), False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv5x5(x)


class Heads(nn.Module):
    def __init__(self, features: int, classes: int):
        super().__init__()
        self.conv1x1 = Pointwise(features, features)
        self.obj_layers = Head(features, 1)
        self.reg_layers = Head(features, 4)
        self.cls_layers = Head(features, classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.conv1x1(x)
        found = (self.obj_layers(x), self.reg_layers(x), self.cls_layers(x))
        return tuple(one.permute(0, 2, 3, 1) for one in found)


class FastestDet(nn.Module):
    def __init__(self, classes: int, widths: tuple[int, ...], depths: tuple[int, ...]):
        super().__init__()
        self.backbone = Trunk(widths, depths)
        self.SPP = Pooling(sum(widths[1:]), widths[-2])
        self.detect_head = Heads(widths[-2], classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(logit of objectness, raw box, logits of classes), channels last."""
        fine, middle, coarse = self.backbone(x)
        coarse = nn.functional.interpolate(coarse, scale_factor=2, mode="nearest")
        fine = nn.functional.avg_pool2d(fine, 3, 2, 1)
        return self.detect_head(self.SPP(torch.cat([fine, middle, coarse], 1)))


def centred(raw: torch.Tensor, x: torch.Tensor, y: torch.Tensor, size: tuple[int, int]):
    """(centre x, centre y, width, height) in cells."""
    height, width = size
    return torch.stack(
        [
            raw[..., 0].tanh() + x,
            raw[..., 1].tanh() + y,
            raw[..., 2].sigmoid() * width,
            raw[..., 3].sigmoid() * height,
        ],
        -1,
    )


def siou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """https://arxiv.org/abs/2205.12740, of boxes (centre, size) [n, 4]."""
    eps = 1e-7
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.unbind(-1), b.unbind(-1)
    left, right = torch.minimum(ax - aw / 2, bx - bw / 2), torch.maximum(ax + aw / 2, bx + bw / 2)
    top, low = torch.minimum(ay - ah / 2, by - bh / 2), torch.maximum(ay + ah / 2, by + bh / 2)
    wide = torch.minimum(ax + aw / 2, bx + bw / 2) - torch.maximum(ax - aw / 2, bx - bw / 2)
    high = torch.minimum(ay + ah / 2, by + bh / 2) - torch.maximum(ay - ah / 2, by - bh / 2)
    shared = wide.clamp(min=0) * high.clamp(min=0)
    ah, bh = ah + eps, bh + eps
    overlap = shared / (aw * ah + bw * bh - shared + eps)
    dx, dy = bx - ax, by - ay
    far = torch.sqrt(dx**2 + dy**2)
    sine = torch.where(dx.abs() / far > math.sqrt(0.5), dy.abs() / far, dx.abs() / far)
    angle = torch.cos(torch.arcsin(sine) * 2 - math.pi / 2) - 2
    distance = 2 - sum(
        torch.exp(angle * (one / side) ** 2) for one, side in ((dx, right - left), (dy, low - top))
    )
    shape = sum(
        (1 - torch.exp(-(one - two).abs() / torch.maximum(one, two))) ** 4
        for one, two in ((aw, bw), (ah, bh))
    )
    return overlap - 0.5 * (distance + shape)


def losses(
    outputs: tuple[torch.Tensor, ...], targets: list[dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    objectness, raw, classes = outputs
    batch, height, width = objectness.shape[:3]
    rows = []  # (image, column, row, class, box)
    for image, one in enumerate(targets):
        for box, label in zip(one["boxes"] / 16, one["labels"]):
            centre, side = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
            for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
                x, y = int(centre[0]) + right, int(centre[1]) + down
                if x < width and y < height:
                    rows.append((image, x, y, int(label), torch.cat([centre, side])))
    b, x, y, label = (torch.tensor([row[k] for row in rows]) for k in range(4))
    truth = torch.stack([row[4] for row in rows])
    overlap = siou(centred(raw[b, y, x], x, y, (height, width)), truth)
    chosen = overlap > overlap.mean()
    b, x, y, label, overlap = (one[chosen] for one in (b, x, y, label, overlap))
    cells = set(zip(b.tolist(), x.tolist(), y.tolist()))
    assert len(cells) == len(b), "two objects train one cell"
    wanted = torch.zeros(batch, height, width, dtype=raw.dtype)
    factor = torch.full_like(wanted, 0.75)
    wanted[b, y, x] = overlap
    factor[b, y, x] = 0.25 * height * width / torch.bincount(b)[b].to(factor)
    error = nn.functional.smooth_l1_loss(objectness[..., 0].sigmoid(), wanted, reduction="none")
    likelihood = torch.log_softmax(classes[b, y, x], -1)
    return {
        "box": 8 * (1 - overlap).mean(),
        "objectness": 16 * (error * factor).mean(),
        "classification": nn.functional.nll_loss(likelihood, label),
    }
