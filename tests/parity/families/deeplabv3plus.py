"""`jaxvision.models.segmentation.deeplabv3plus`."""

from parity.case import Case

CASES = {"deeplabv3plus_resnet18": Case((4, 3, 32, 48), 5, gradients=True)}
CLASSES = 21
PARAMETERS = {
    "deeplabv3plus_resnet18": 12_334_437,
    "deeplabv3plus_resnet34": 22_442_597,
    "deeplabv3plus_resnet50": 26_682_725,
    "deeplabv3plus_resnet101": 45_674_853,
}


def build(name, case):
    from parity.references import segmentation_models

    encoder = name.removeprefix("deeplabv3plus_")
    return segmentation_models().DeepLabV3Plus(encoder, encoder_weights=None, classes=case.classes)
