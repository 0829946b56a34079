"""`jaxvision.models.backbones.vgg`."""

from parity.case import Case

_IMAGE, _NARROW = (2, 3, 48, 33), {"hidden": 64}
_PLAIN = ("features.1", "features.4", "features.9", "features.14", "features.19", "features.20")
_NORMED = ("features.2", "features.6", "features.13", "features.20", "features.27", "features.28")
_C = ("features.3", "features.8", "features.15", "features.22", "features.29", "features.30")
CASES = {
    "vgg11": Case(_IMAGE, options=_NARROW, features=_PLAIN),
    "vgg11_lrn": Case(_IMAGE, options=_NARROW, features=_PLAIN),
    "vgg11_bn": Case(_IMAGE, options=_NARROW, features=_NORMED),
    "vgg16c": Case(_IMAGE, options=_NARROW, features=_C),
}
# The paper's table 2, in millions: 133 (A, A-LRN, B), 134 (C), 138 (D), 144 (E).
PARAMETERS = {
    "vgg11": 132_863_336,
    "vgg11_lrn": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg16c": 133_638_952,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
}


def build(name, case):
    from parity.networks.alexnet import PaperLRN
    from parity.references import torchvision
    from torch import nn

    known = {"vgg11_lrn": "vgg11", "vgg16c": "vgg16"}.get(name, name)
    network = getattr(torchvision().models, known)(num_classes=case.classes)
    hidden = case.options["hidden"]
    network.classifier[0] = nn.Linear(25088, hidden)
    network.classifier[3] = nn.Linear(hidden, hidden)
    network.classifier[6] = nn.Linear(hidden, case.classes)
    if name == "vgg11_lrn":
        network.features[1] = nn.Sequential(nn.ReLU(), PaperLRN())
    if name == "vgg16c":
        for index, width in ((14, 256), (21, 512), (28, 512)):
            network.features[index] = nn.Conv2d(width, width, 1)
    return network
