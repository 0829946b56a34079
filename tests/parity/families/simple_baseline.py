"""`jaxvision.models.pose.simple_baseline`."""

from parity.case import Case

CASES = {
    "simple_baseline_resnet50": Case(
        (2, 3, 64, 33),
        5,
        {"encoder_options": {"depths": (1, 1, 1, 1)}, "widths": (16, 12, 8)},
    ),
    # Few rectifiers, so that rounding decides no slope.
    "simple_baseline_shallow": Case(
        (3, 3, 16, 20),
        5,
        {"encoder": "resnet18", "encoder_options": {"depths": (1,)}, "widths": (12, 8)},
        gradients=True,
        variant="simple_baseline_resnet50",
    ),
}
CLASSES = 17
PARAMETERS = {
    "simple_baseline_resnet50": 33_999_697,
    "simple_baseline_resnet101": 52_991_825,
    "simple_baseline_resnet152": 68_635_473,
}


def build(name, case):
    from parity.networks.simple_baseline import PoseResNet
    from parity.references import torchvision

    resnet = torchvision().models.resnet
    depths = case.options["encoder_options"]["depths"]
    block = resnet.BasicBlock if name.endswith("shallow") else resnet.Bottleneck
    trunk = resnet.ResNet(block, (*depths, *(1,) * (4 - len(depths))))
    for stage in range(len(depths), 4):
        delattr(trunk, f"layer{stage + 1}")
    channels = 2 ** (5 + len(depths)) * block.expansion
    return PoseResNet(trunk, channels, case.options["widths"], case.classes)
