"""`jaxvision.models.backbones.xception`."""

from parity.case import Case

_PYRAMID = ("act2", "block2.rep.0", "block3.rep.0", "block5.rep.0", "act4")
CASES = {"legacy_xception": Case((2, 3, 96, 71), options={"middle": 1}, features=_PYRAMID)}
PARAMETERS = {"legacy_xception": 22_855_952}


def build(name, case):
    from parity.references import timm
    from torch import nn

    network = timm().create_model(name, num_classes=case.classes)
    network.block5 = network.block12  # after the entry flow and one block of the middle flow
    for index in range(6, 13):
        setattr(network, f"block{index}", nn.Identity())
    return network
