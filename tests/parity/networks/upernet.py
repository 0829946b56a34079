"""UPerNet's heads of transformers on torchvision's ResNet."""

import torch
from parity.references import transformers
from torch.nn.functional import interpolate


class UPerNet(torch.nn.Module):
    """Named as transformers' network, with torchvision's names in the backbone."""

    def __init__(self, trunk: torch.nn.Module, channels, classes: int, width: int, auxiliary: int):
        super().__init__()
        config = transformers().UperNetConfig(
            num_labels=classes, hidden_size=width, auxiliary_channels=auxiliary
        )
        config.auxiliary_in_channels = None
        from transformers.models.upernet import modeling_upernet as heads

        del trunk.fc
        self.backbone = trunk
        self.decode_head = heads.UperNetHead(config, channels)
        self.auxiliary_head = heads.UperNetFCNHead(config, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        trunk, maps = self.backbone, []
        y = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(x))))
        for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
            y = stage(y)
            maps.append(y)
        return interpolate(self.decode_head(maps), x.shape[2:], mode="bilinear")


def upsampled(network: torch.nn.Module) -> torch.nn.Module:
    """A network of transformers that returns logits at the image's size."""
    inner = network.forward
    network.forward = lambda x: interpolate(inner(x).logits, x.shape[2:], mode="bilinear")
    return network
