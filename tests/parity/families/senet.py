"""`jaxvision.models.backbones.senet`."""

from parity.case import Case

_PYRAMID = ("layer0", "layer1", "layer2", "layer3", "layer4")
CASES = {
    "legacy_senet154": Case(
        (2, 3, 64, 71), options={"depths": (1, 1, 1, 1)}, features=_PYRAMID, slow="all"
    ),
    "legacy_seresnet50": Case((2, 3, 64, 71), options={"depths": (2, 1, 1, 1)}, features=_PYRAMID),
}
PARAMETERS = {
    "legacy_senet154": 115_088_984,
    "legacy_seresnet50": 28_088_024,
    "legacy_seresnet101": 49_326_872,
    "legacy_seresnet152": 66_821_848,
}


def build(name, case):
    from parity.references import timm

    depths = case.options["depths"]
    return timm().create_model(name, num_classes=case.classes, layers=depths, drop_rate=0.0)
