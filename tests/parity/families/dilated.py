"""`jaxvision.models.segmentation.dilated`."""

from parity.case import Case

_SMALL = {"width": 0.03125, "hidden": 8}
CASES = {
    "dilated_vgg16": Case((1, 3, 16, 11), 5, _SMALL),
    "dilated_vgg16_context": Case((1, 3, 8, 16), 3, _SMALL, gradients=True),
    "dilated_vgg16_context_large": Case((1, 3, 8, 16), 2, _SMALL, slow="all"),
}
CLASSES = 21
# The front end's, and 28,392 and 6,803,139 of the context modules.
PARAMETERS = {
    "dilated_vgg16": 134_346_581,
    "dilated_vgg16_context": 134_374_973,
    "dilated_vgg16_context_large": 141_149_720,
}


def build(name, case):
    from parity.networks.dilated import DilatedVGG

    channels = [round(c * case.options["width"]) for c in (64, 128, 256, 512, 512)]
    context = name.removeprefix("dilated_vgg16").removeprefix("_context").removeprefix("_")
    context = context or ("basic" if name.endswith("context") else "")
    return DilatedVGG(case.classes, context, channels, case.options["hidden"])
