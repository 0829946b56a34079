"""`jaxvision.models.backbones.mobilenet_v3`."""

from parity.case import Case

# Each kind of block of the large one, cut short.
_CUT = (
    (3, 16, 16, False, "RE", 1),
    (3, 64, 24, False, "RE", 2),
    (5, 72, 40, True, "RE", 2),
    (3, 96, 40, True, "HS", 1),
    (3, 96, 40, False, "HS", 1),
)
_SMALL = ("features.0", "features.1", "features.3", "features.8", "features.11")
CASES = {
    "mobilenet_v3_large": Case(
        (4, 3, 32, 40),
        options={"rows": _CUT, "hidden": 48},
        features=("features.1", "features.2", "features.5"),
        gradients=True,
    ),
    "mobilenet_v3_small": Case((2, 3, 64, 71), features=_SMALL),
    "mobilenet_v3_small_dilated": Case(
        (2, 3, 48, 65),
        options={"width_mult": 0.5, "reduced_tail": True, "output_stride": 16},
        features=_SMALL,
        variant="mobilenet_v3_small",
    ),
}
PARAMETERS = {"mobilenet_v3_large": 5_483_032, "mobilenet_v3_small": 2_542_856}


def build(name, case):
    from parity.references import torchvision

    models = torchvision().models
    if name == "mobilenet_v3_small":
        return models.mobilenet_v3_small(num_classes=case.classes)
    if name == "mobilenet_v3_small_dilated":
        return models.mobilenet_v3_small(
            num_classes=case.classes, width_mult=0.5, reduced_tail=True, dilated=True
        )
    return models.MobileNetV3(rows(case.options["rows"]), case.options["hidden"], case.classes)


def rows(options):
    """torchvision's of ours."""
    from torchvision.models.mobilenetv3 import InvertedResidualConfig

    found, channels = [], 16
    for kernel, width, features, squeezed, act, stride in options:
        found.append(
            InvertedResidualConfig(channels, kernel, width, features, squeezed, act, stride, 1, 1.0)
        )
        channels = features
    return found
