"""`jaxvision.models.pose.simple_baseline`."""

from parity.case import Case

CASES = {
    "simple_baseline_resnet50": Case(
        (3, 3, 48, 33),
        5,
        {"encoder_options": {"depths": (1, 1, 1, 1)}, "widths": (16, 12, 8)},
        gradients=True,
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
    trunk = resnet.ResNet(resnet.Bottleneck, depths)
    return PoseResNet(trunk, case.classes, case.options["widths"])
