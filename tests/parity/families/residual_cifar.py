"""`jaxvision.models.backbones.residual_cifar`."""

from parity.case import Case

_STAGES = ("features.stage1", "features.stage2", "features.stage3")
_LAST = (*_STAGES[:2], "features.post_activ")
CASES = {
    name: Case((2, 3, 32, 32), options=options, features=_LAST if "pre" in name else _STAGES)
    for name, options in {
        "resnet20_cifar10": {"depth": 2},
        "seresnet164bn_cifar10": {"depth": 1},
        "preresnet164bn_cifar10": {"depth": 2},
        "resnext29_16x64d_cifar10": {"depth": 1, "widths": (32, 64, 128)},
    }.items()
} | {
    "wrn28_10_cifar10": Case(
        (5, 3, 32, 32),
        options={"depth": 2, "widths": (32, 64, 128)},
        features=_LAST,
        gradients=True,
    )
}
CLASSES = 10
PARAMETERS = {
    "resnet20_cifar10": 272_474,
    "resnet56_cifar10": 855_770,
    "resnet110_cifar10": 1_730_714,
    "resnet164bn_cifar10": 1_704_154,
    "preresnet20_cifar10": 272_282,
    "preresnet56_cifar10": 855_578,
    "preresnet110_cifar10": 1_730_522,
    "preresnet164bn_cifar10": 1_703_258,
    "seresnet20_cifar10": 274_847,
    "seresnet56_cifar10": 862_889,
    "seresnet110_cifar10": 1_744_952,
    "seresnet164bn_cifar10": 1_906_258,
    "wrn16_10_cifar10": 17_116_634,
    "wrn28_10_cifar10": 36_479_194,
    "wrn40_8_cifar10": 35_748_314,
    "resnext20_16x4d_cifar10": 1_995_082,
    "resnext20_32x4d_cifar10": 3_295_562,
    "resnext29_32x4d_cifar10": 4_775_754,
    "resnext29_16x64d_cifar10": 68_155_210,
}


def build(name, case):
    from pytorchcv.models.preresnet_cifar import CIFARPreResNet
    from pytorchcv.models.resnet_cifar import CIFARResNet
    from pytorchcv.models.resnext_cifar import CIFARResNeXt
    from pytorchcv.models.seresnet_cifar import CIFARSEResNet
    from pytorchcv.models.wrn_cifar import CIFARWRN

    bottleneck = "bn" in name
    standard = (64, 128, 256) if bottleneck else (16, 32, 64)
    widths = case.options.get("widths", standard)
    channels, classes = [[width] * case.options["depth"] for width in widths], case.classes
    if name.startswith("wrn"):
        return CIFARWRN(channels, 16, num_classes=classes)
    if name.startswith("resnext"):
        return CIFARResNeXt(channels, 64, 16, 64, num_classes=classes)
    families = {"preresnet": CIFARPreResNet, "seresnet": CIFARSEResNet, "resnet": CIFARResNet}
    network = families[name[: name.index("net") + 3]]
    return network(channels, 16, bottleneck, num_classes=classes)
