"""`jaxvision.models.backbones.lenet`."""

import sys
from pathlib import Path

from parity.case import Case

CASES = {
    "lenet5": Case((8, 1, 32, 32), gradients=True),
    "lenet5_sparse": Case((8, 1, 32, 32), gradients=True),
}
CLASSES = 10
PARAMETERS = {"lenet5": 61_706, "lenet5_sparse": 60_000}


def build(name, case):
    from parity.networks.lenet import LeNet5, LeNet5Sparse

    if name == "lenet5_sparse":
        sys.path.append(str(Path(__file__).parents[3]))
        from jaxvision.models.backbones.lenet import BITMAPS  # drawn by us

        return LeNet5Sparse(BITMAPS)
    return LeNet5(case.classes)
