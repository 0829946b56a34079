"""`jaxvision.models.backbones.resnet`."""

from parity.case import Case

_PYRAMID = ("relu", "layer1", "layer2", "layer3", "layer4")
_TIMM = ("act1", *_PYRAMID[1:])
CASES = {
    "resnet18": Case((2, 3, 64, 64), features=_PYRAMID, gradients=True),
    "resnet50": Case((2, 3, 64, 64), features=_PYRAMID, slow="all"),
    "resnet50_dilated": Case(
        (2, 3, 64, 64),
        options={"output_stride": 8},
        features=_PYRAMID,
        variant="resnet50",
        slow="all",
    ),
    "resnext50_32x4d": Case(
        (4, 3, 64, 64),
        options={"depths": (1, 1, 1, 1)},
        features=_PYRAMID,
        gradients=True,
        slow="training",
    ),
    "wide_resnet50_2": Case((2, 3, 64, 64), features=_PYRAMID, slow="all"),
    "seresnet50": Case(
        (2, 3, 64, 64), options={"depths": (1, 1, 1, 1)}, features=_TIMM, slow="all"
    ),
    "seresnet18": Case((2, 3, 64, 64), features=_TIMM),
}
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "seresnet18": 11_779_624,
    "seresnet34": 21_960_416,
    "seresnet50": 28_088_024,
    "seresnet101": 49_326_872,
    "seresnet152": 66_821_848,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
}


def build(name, case):
    from parity.references import timm, torchvision

    if name.startswith("se"):
        depths = {"layers": case.options["depths"]} if case.options else {}
        return timm().create_model(name, num_classes=case.classes, **depths)
    models = torchvision().models
    if name == "resnext50_32x4d":
        block, depths = models.resnet.Bottleneck, case.options["depths"]
        return models.ResNet(block, depths, case.classes, groups=32, width_per_group=4)
    more = {"replace_stride_with_dilation": (False, True, True)} if case.options else {}
    return getattr(models, case.variant or name)(num_classes=case.classes, **more)
