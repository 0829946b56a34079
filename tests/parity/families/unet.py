"""`jaxvision.models.segmentation.unet`."""

from parity.case import Case

CASES = {
    "unet": Case((2, 3, 64, 48), 3, {"width": 8, "depth": 3}, gradients=True),
    "unet_valid": Case(
        (2, 1, 60, 44), 2, {"width": 8, "depth": 2}, gradients=True, slow="training"
    ),
}
CLASSES = 2
PARAMETERS = {"unet": 36_957_314, "unet_valid": 36_950_338, "unet_small": 9_243_202}


def build(name, case):
    from unet import UNet

    form = {"padding": 0} if name == "unet_valid" else {"normalization": "batch", "padding": 1}
    blocks, width = case.options["depth"] + 1, case.options["width"]
    return UNet(case.image[1], case.classes, 2, blocks, width, **form)
