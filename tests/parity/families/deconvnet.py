"""`jaxvision.models.segmentation.deconvnet`."""

from parity.case import Case

CASES = {
    "deconvnet": Case((2, 3, 64, 79), 5, {"width": 0.0625, "hidden": 12, "window": 2}),
    # Few rectifiers and maxima, so that rounding decides none.
    "deconvnet_shallow": Case(
        (4, 3, 21, 17),
        5,
        {"channels": (6, 8), "depths": (2, 1), "hidden": 12, "window": 4},
        gradients=True,
        variant="deconvnet",
    ),
}
CLASSES = 21
PARAMETERS = {"deconvnet": 251_805_653}


def build(name, case):
    from parity.networks.deconvnet import DeconvNet

    options = {"channels": (64, 128, 256, 512, 512), **case.options}
    width = options.pop("width", 1)
    options["channels"] = [round(c * width) for c in options["channels"]]
    return DeconvNet(case.classes, **options)
