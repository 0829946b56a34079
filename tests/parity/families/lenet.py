"""`jaxvision.models.lenet`."""

from parity.case import Case

CASES = {"lenet5": Case((8, 1, 32, 32), gradients=True)}
CLASSES = 10
PARAMETERS = {"lenet5": 61_706}


def build(name, case):
    from parity.networks.lenet import LeNet5

    return LeNet5(case.classes)
