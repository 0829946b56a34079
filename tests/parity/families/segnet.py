"""`jaxvision.models.segmentation.segnet`."""

from parity.case import Case

CASES = {"segnet": Case((2, 3, 64, 96), 5, {"width": 0.125}, gradients=True)}
CLASSES = 19
PARAMETERS = {"segnet": 29_453_971, "segnet_small": 1_847_731}


def build(name, case):
    from pytorchcv.models.segnet import SegNet

    channels = [round(c * case.options["width"]) for c in (64, 128, 256, 512, 512)]
    decoder = [*channels[-2::-1], channels[0]]
    layers = [[3, 3, 4, 4, 4], [4, 4, 4, 3, 2]]
    return SegNet([channels, decoder], layers, num_classes=case.classes)
