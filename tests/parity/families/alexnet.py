"""`jaxvision.models.backbones.alexnet`."""

from parity.case import Case

_PYRAMID = ("features.1", "features.4", "features.11", "features.12")
_NARROW = {"hidden": 64}
CASES = {
    "alexnet": Case((2, 3, 95, 127), options=_NARROW, features=_PYRAMID),
    "alexnet_groups": Case((2, 3, 95, 127), options=_NARROW, features=_PYRAMID, gradients=True),
}
PARAMETERS = {"alexnet": 61_100_840, "alexnet_groups": 60_965_224}


def build(name, case):
    from torch import nn

    if name == "alexnet_groups":
        from parity.networks.alexnet import AlexNetGroups

        return AlexNetGroups(case.classes, **case.options)
    from parity.references import torchvision

    hidden = case.options["hidden"]
    network = torchvision().models.alexnet(num_classes=case.classes)
    network.classifier[1] = nn.Linear(9216, hidden)
    network.classifier[4] = nn.Linear(hidden, hidden)
    network.classifier[6] = nn.Linear(hidden, case.classes)
    return network
