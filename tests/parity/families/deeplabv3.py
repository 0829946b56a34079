"""`jaxvision.models.segmentation.deeplabv3`."""

from parity.case import Case

_SMALL = {"depths": (1, 1, 1, 1), "output_stride": 8}
CASES = {
    "fcn_resnet50": Case((2, 3, 40, 24), 5, {"encoder_options": _SMALL}),
    "deeplabv3_resnet50": Case(
        (3, 3, 24, 16), 5, {"encoder_options": _SMALL}, gradients=True, slow="training"
    ),
}
CLASSES = 21
PARAMETERS = {
    "fcn_resnet50": 32_957_013,
    "fcn_resnet101": 51_949_141,
    "deeplabv3_resnet50": 39_638_869,
    "deeplabv3_resnet101": 58_630_997,
}


def build(name, case):
    from parity.references import torchvision

    models = torchvision().models
    trunk = models.ResNet(
        models.resnet.Bottleneck,
        case.options["encoder_options"]["depths"],
        replace_stride_with_dilation=(False, True, True),
    )
    kind = getattr(models.segmentation, "fcn" if name.startswith("fcn") else "deeplabv3")
    make = kind._fcn_resnet if name.startswith("fcn") else kind._deeplabv3_resnet
    return make(trunk, case.classes, False)
