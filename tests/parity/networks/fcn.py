"""FCN's head on torchvision's ResNet, from the paper."""

import torch
from torch import nn


class FCNPyramid(nn.Module):
    def __init__(self, encoder, channels, classes):
        super().__init__()
        self.encoder = encoder
        for stride, width in zip((8, 16, 32), channels, strict=True):
            setattr(self, f"score{stride}", nn.Conv2d(width, classes, 1))
            factor = 8 if stride == 8 else 2
            up = nn.ConvTranspose2d(classes, classes, 2 * factor, factor, factor // 2, bias=False)
            setattr(self, f"upscore{stride}", up)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        e, (height, width) = self.encoder, image.shape[2:]
        image = nn.functional.pad(image, (0, -width % 32, 0, -height % 32))
        x = e.layer1(e.maxpool(e.relu(e.bn1(e.conv1(image)))))
        x8 = e.layer2(x)
        x16 = e.layer3(x8)
        x = self.upscore32(self.score32(e.layer4(x16)))
        x = self.upscore16(x + self.score16(x16))
        x = self.upscore8(x + self.score8(x8))
        return x[:, :, :height, :width]
