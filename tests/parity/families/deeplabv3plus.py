"""`jaxvision.models.segmentation.deeplabv3plus`."""

from parity.case import Case

_SHALLOW = {"encoder_options": {"depths": (1, 1, 1, 1)}}
CASES = {
    "deeplabv3plus_resnet18": Case((4, 3, 32, 48), 5, gradients=True, slow="all"),
    "deeplabv3plus_resnet18_shallow": Case(
        (4, 3, 32, 48), 5, _SHALLOW, gradients=True, variant="deeplabv3plus_resnet18"
    ),
}
CLASSES = 21
PARAMETERS = {
    "deeplabv3plus_resnet18": 12_334_437,
    "deeplabv3plus_resnet34": 22_442_597,
    "deeplabv3plus_resnet50": 26_682_725,
    "deeplabv3plus_resnet101": 45_674_853,
}


def build(name, case):
    from parity.references import first_blocks, segmentation_models

    encoder = (case.variant or name).removeprefix("deeplabv3plus_")
    make = segmentation_models().DeepLabV3Plus
    network = make(encoder, encoder_weights=None, classes=case.classes)
    if case.options:
        first_blocks(network.encoder)
    return network
