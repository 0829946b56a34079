"""`jaxvision.models.backbones.capsnet`."""

from parity.case import Case

_SMALL = {"width": 16, "types": 8}
# Few classes have long capsules, on whose agreement the routing depends.
CASES = {
    "capsnet": Case((4, 1, 28, 28), 3, options=_SMALL, gradients=True),
    "capsnet_decoder": Case((2, 1, 28, 28), 3, options=_SMALL),
}
CLASSES = 10
PARAMETERS = {"capsnet": 6_804_224, "capsnet_decoder": 8_215_568}


def build(name, case):
    from parity.networks.capsnet import CapsNet

    return CapsNet(case.classes, **_SMALL, decoder=name == "capsnet_decoder")
