"""OverFeat in PyTorch, written from tables 1 and 3 and section 4 of the paper.

https://arxiv.org/abs/1312.6229. `layers` are rows (channels, kernel, stride, padding, pooling).
"""

import torch
from torch import nn


def trunk(layers):
    found, before = [], 3
    for width, kernel, stride, padding, pool in layers:
        found += [nn.Conv2d(before, width, kernel, stride, padding), nn.ReLU()]
        found += [nn.MaxPool2d(pool, pool)] if pool else []
        before = width
    return nn.Sequential(*found)


def head(before, widths, kernel, dropout):
    found = []
    for index, width in enumerate(widths):
        found += [nn.Conv2d(before, width, kernel if index == 0 else 1)]
        if index + 1 < len(widths):
            found += [nn.ReLU(), nn.Dropout(0.5)] if dropout else [nn.ReLU()]
        before = width
    return nn.Sequential(*found)


def by_rows(x):
    return x.permute(0, 2, 3, 1).flatten(1, 2)


class OverFeat(nn.Module):
    """(logits [b, n, k + 1], coded boxes [b, n, 4 or 4 k] or None, windows [n, 4]) of images.

    Args:
      features: the trunk.
      channels: of its map.
      window, apart: size and distance of the windows, in pixels.
    """

    def __init__(
        self, features, channels, classes, kernel, hidden, boxes, window, apart, scales, encoded
    ):
        super().__init__()
        self.encoded, self.classes = encoded, classes
        self.window, self.apart, self.scales = window, apart, scales
        if encoded:
            self.encoder = nn.ModuleDict({"features": features})
        else:
            self.features = features
        self.classifier = head(channels, (*hidden, classes + 1), kernel, True)
        self.regressor = head(channels, boxes, kernel, False) if boxes else None

    def forward(self, images):
        found, height, width = [], *images.shape[2:]
        features = self.encoder["features"] if self.encoded else self.features
        for scale in self.scales:
            size = round(height * scale), round(width * scale)
            x = nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
            x = features(x)
            logits = self.classifier(x)
            coded = by_rows(self.regressor(x)) if self.regressor else None
            rows, columns = (torch.arange(n) * self.apart for n in logits.shape[2:])
            y, x = (axis.flatten() for axis in torch.meshgrid(rows, columns, indexing="ij"))
            sides = torch.stack([x, y, x + self.window, y + self.window], -1).double()
            sides = sides * torch.tensor([width / size[1], height / size[0]] * 2)
            found.append((by_rows(logits), coded, sides))
        logits, coded, windows = zip(*found)
        coded = torch.cat(coded, 1) if self.regressor else None
        return torch.cat(logits, 1), coded, torch.cat(windows)

    def decoded(self, coded, windows):
        """Boxes [n, k, 4] of one image's windows and the classes."""
        corner, size = windows[:, None, :2].repeat(1, 1, 2), windows[:, None, 2:]
        size = (size - corner[..., :2]).repeat(1, 1, 2)
        if coded is None:
            return windows[:, None].expand(-1, self.classes, 4)
        boxes = coded.unflatten(-1, (-1, 4)) * size + corner
        return boxes.expand(-1, self.classes, 4)


def losses(network, images, targets, negatives):
    from torchvision.ops import box_iou

    logits, coded, windows = network(images)
    entropy, error, count = 0, 0, 0
    for one, target in enumerate(targets):
        overlap, index = box_iou(target["boxes"], windows).max(0)
        learns, background = overlap >= 0.5, overlap < 0.3
        label = torch.where(learns, target["labels"][index] + 1, 0)
        costs = nn.functional.cross_entropy(logits[one], label, reduction="none")
        number = int(learns.sum())
        hardest = costs[background].sort(descending=True).values[: negatives * number]
        entropy, count = entropy + costs[learns].sum() + hardest.sum(), count + number
        if coded is not None:
            extent = (windows[:, 2:] - windows[:, :2]).repeat(1, 2)
            wanted = (target["boxes"][index] - windows[:, :2].repeat(1, 2)) / extent
            own = coded[one].unflatten(-1, (-1, 4)).expand(-1, network.classes, 4)
            own = own[torch.arange(len(windows)), (label - 1).clamp(min=0)]
            error = error + (own - wanted)[learns].square().sum()
    found = {"classification": entropy / count}
    return found if coded is None else {**found, "bbox_regression": error / count}
