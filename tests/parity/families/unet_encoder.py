"""`jaxvision.models.segmentation.unet_encoder`."""

from parity.case import Case

_SHALLOW = {"encoder_options": {"depths": (1, 1, 1, 1)}}
CASES = {
    "unet_resnet18": Case((2, 3, 32, 48), 5, gradients=True, slow="all"),
    "unet_resnet18_shallow": Case(
        (2, 3, 32, 48), 5, _SHALLOW, gradients=True, variant="unet_resnet18", slow="training"
    ),
    "unet_vgg16_bn": Case((1, 3, 32, 32), 5, slow="all"),
    # Maps that are rounded down, of a network whose maps differ from those of others' pyramids.
    "unet_densenet121": Case(
        (1, 3, 47, 75),
        5,
        {"encoder": "densenet121", "encoder_options": {"depths": (2, 2, 2, 2)}},
        variant="unet_resnet18",
    ),
}
CLASSES = 21
PARAMETERS = {
    "unet_resnet18": 14_331_109,
    "unet_resnet34": 24_439_269,
    "unet_resnet50": 32_524_005,
    "unet_resnet101": 51_516_133,
    "unet_vgg16_bn": 23_759_589,
}


def build(name, case):
    from parity.pairs import smp
    from parity.references import first_blocks, segmentation_models

    if name == "unet_densenet121":
        return smp("Unet", "densenet121")
    encoder = (case.variant or name).removeprefix("unet_")
    network = segmentation_models().Unet(encoder, encoder_weights=None, classes=case.classes)
    if case.options:
        first_blocks(network.encoder)
    return network
