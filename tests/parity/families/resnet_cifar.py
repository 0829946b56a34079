"""`jaxvision.models.backbones.resnet_cifar`."""

from parity.case import Case

CASES = {
    "resnet20_cifar": Case((4, 3, 32, 32), features=("layer1", "layer2", "layer3"), gradients=True),
}
CLASSES = 10
# He et al. 2015, table 6, in thousands or millions.
PARAMETERS = {
    "resnet8_cifar": 75_290,
    "resnet14_cifar": 172_506,
    "resnet20_cifar": 269_722,
    "resnet32_cifar": 464_154,
    "resnet44_cifar": 658_586,
    "resnet56_cifar": 853_018,
    "resnet110_cifar": 1_727_962,
    "resnet1202_cifar": 19_421_274,
}


def build(name, case):
    from parity.networks.resnet_cifar import CifarResNet

    depth = int(name.removeprefix("resnet").removesuffix("_cifar"))
    return CifarResNet((depth - 2) // 6, case.classes)
