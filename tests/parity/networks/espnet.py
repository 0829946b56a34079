"""ESPNet in PyTorch, from the paper, with the names of the authors' code."""

import torch
import torch.nn.functional as F
from torch import nn

RATES = (1, 2, 4, 8, 16)


class Conv(nn.Module):
    def __init__(self, i, o, size, stride=1, dilation=1):
        super().__init__()
        padding = size // 2 * dilation
        self.conv = nn.Conv2d(i, o, size, stride, padding, dilation, bias=False)

    def forward(self, x):
        return self.conv(x)


class NormAct(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, 1e-3)
        self.act = nn.PReLU(channels)

    def forward(self, x):
        return self.act(self.bn(x))


class ConvNormAct(NormAct):
    def __init__(self, i, o, size, stride=1):
        super().__init__(o)
        self.conv = nn.Conv2d(i, o, size, stride, size // 2, bias=False)

    def forward(self, x):
        return super().forward(self.conv(x))


class Pyramid(nn.Module):
    """What both kinds of ESP modules share."""

    def __init__(self, i, o, size, stride):
        super().__init__()
        n = o // 5
        self.c1 = Conv(i, n, size, stride)
        for rate in RATES:
            setattr(self, f"d{rate}", Conv(n, o - 4 * n if rate == 1 else n, 3, 1, rate))

    def branches(self, x):
        x = self.c1(x)
        sums = list(torch.stack([self.d2(x), self.d4(x), self.d8(x), self.d16(x)]).cumsum(0))
        return torch.cat([self.d1(x), *sums], 1)


class Down(Pyramid):
    def __init__(self, i, o):
        super().__init__(i, o, 3, 2)
        self.bn = nn.BatchNorm2d(o, 1e-3)
        self.act = nn.PReLU(o)

    def forward(self, x):
        return self.act(self.bn(self.branches(x)))


class ESP(Pyramid):
    def __init__(self, i, o, add=True):
        super().__init__(i, o, 1, 1)
        self.bn, self.add = NormAct(o), add

    def forward(self, x):
        y = self.branches(x)
        return self.bn(x + y if self.add else y)


class Encoder(nn.Module):
    """ESPNet-C; its scores are enlarged where it stands alone."""

    def __init__(self, classes, p, q):
        super().__init__()
        self.level1, self.b1 = ConvNormAct(3, 16, 3, 2), NormAct(19)
        self.level2_0, self.b2 = Down(19, 64), NormAct(131)
        self.level2 = nn.ModuleList(ESP(64, 64) for _ in range(p))
        self.level3_0, self.b3 = Down(131, 128), NormAct(256)
        self.level3 = nn.ModuleList(ESP(128, 128) for _ in range(q))
        self.classifier = Conv(256, classes, 1)

    def maps(self, image):
        half = F.avg_pool2d(image, 3, 2, 1)
        quarter = F.avg_pool2d(half, 3, 2, 1)
        fine = self.b1(torch.cat([self.level1(image), half], 1))
        first = x = self.level2_0(fine)
        for block in self.level2:
            x = block(x)
        middle = self.b2(torch.cat([x, first, quarter], 1))
        first = x = self.level3_0(middle)
        for block in self.level3:
            x = block(x)
        return fine, middle, self.classifier(self.b3(torch.cat([first, x], 1)))

    def forward(self, image):
        return F.interpolate(self.maps(image)[-1], scale_factor=8, mode="bilinear")


class ESPNet(nn.Module):
    def __init__(self, classes, p, q):
        super().__init__()
        self.encoder = Encoder(classes, p, q)
        self.level3_C = Conv(131, classes, 1)
        self.br = nn.BatchNorm2d(classes, 1e-3)
        self.conv = ConvNormAct(19 + classes, classes, 3)

        def up():
            return nn.ConvTranspose2d(classes, classes, 2, 2, bias=False)

        self.up_l3 = nn.Sequential(up())
        self.combine_l2_l3 = nn.Sequential(
            NormAct(2 * classes), ESP(2 * classes, classes, add=False)
        )
        self.up_l2 = nn.Sequential(up(), NormAct(classes))
        self.classifier = up()

    def forward(self, image):
        fine, middle, coarse = self.encoder.maps(image)
        x = self.up_l3(self.br(coarse))
        x = self.up_l2(self.combine_l2_l3(torch.cat([self.level3_C(middle), x], 1)))
        return self.classifier(self.conv(torch.cat([x, fine], 1)))
