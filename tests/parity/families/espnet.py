"""`jaxvision.models.segmentation.espnet`."""

from parity.case import Case

_SHALLOW = {"depths": (1, 1)}
CASES = {
    "espnet": Case((2, 3, 72, 56), 7, _SHALLOW, gradients=True),
    "espnet_c": Case((2, 3, 48, 56), 7, _SHALLOW),
}
CLASSES = 12
PARAMETERS = {"espnet": 354_517, "espnet_c": 347_401}


def build(name, case):
    from parity.networks import espnet

    network = espnet.ESPNet if name == "espnet" else espnet.Encoder
    return network(case.classes, *case.options["depths"])
