"""`jaxvision.models.backbones.mobilenet`."""

from parity.case import Case

_CUT = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2))
CASES = {
    "mobilenetv1_100": Case(
        (2, 3, 64, 71),
        options={"depths": (1, 2, 2)},
        features=("blocks.0", "blocks.1", "blocks.2"),
    ),
    "mobilenet_wd2": Case(
        (2, 3, 64, 71),
        options={"depths": (1, 2, 2)},
        features=("features.stage1", "features.stage2", "features.stage3"),
    ),
    "mobilenet_v2": Case(
        (4, 3, 32, 32),
        options={"stages": _CUT},
        features=("features.1", "features.3", "features.4"),
        gradients=True,
    ),
    "mobilenet_v2_wide": Case(
        (2, 3, 32, 32), options={"stages": _CUT, "width_mult": 1.4}, variant="mobilenet_v2"
    ),
}
PARAMETERS = {
    "mobilenetv1_100": 4_231_976,
    "mobilenet_w1": 4_231_976,
    "mobilenet_w3d4": 2_585_560,
    "mobilenet_wd2": 1_331_592,
    "mobilenet_wd4": 470_072,
    "mobilenet_v2": 3_504_872,
}


def build(name, case):
    from parity.references import timm, torchvision

    if name.startswith("mobilenet_v2"):
        return torchvision().models.MobileNetV2(
            case.classes, case.options.get("width_mult", 1.0), case.options["stages"]
        )
    depths = case.options["depths"]
    if name == "mobilenet_wd2":
        from pytorchcv.models.mobilenet import MobileNet

        channels = [[16], *([32 * 2**stage] * depth for stage, depth in enumerate(depths))]
        network = MobileNet(channels, False, num_classes=case.classes)
        network.features.final_pool = timm().layers.SelectAdaptivePool2d()
        return network
    from torch import nn

    network = timm().create_model(name, num_classes=case.classes)
    network.blocks = network.blocks[: len(depths)]
    network.classifier = nn.Linear(64 * 2 ** (len(depths) - 1), case.classes)
    return network
