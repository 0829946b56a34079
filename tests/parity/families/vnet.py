"""`jaxvision.models.vnet`."""

from parity.case import Case

_SMALL = {"width": 4, "depths": (1, 1, 2, 1, 1), "up_depths": (2, 1, 1, 1)}
CASES = {"vnet": Case((2, 1, 16, 32, 16), 3, _SMALL, gradients=True)}
CLASSES = 2
PARAMETERS = {"vnet": 45_597_898}


def build(name, case):
    from monai.networks.nets.vnet import (
        DownTransition,
        InputTransition,
        OutputTransition,
        UpTransition,
        VNet,
    )

    # MONAI's is 16 wide; this one has the same parts with fewer channels.
    network, width, act = VNet(3, 1, case.classes), case.options["width"], "elu"
    network.in_tr = InputTransition(3, 1, width, act)
    for level, depth in enumerate(case.options["depths"][1:]):
        drop = 0.5 if level > 1 else None
        down = DownTransition(3, width * 2**level, depth, act, drop)
        setattr(network, f"down_tr{32 * 2**level}", down)
    below = 16
    for level, depth in zip((4, 3, 2, 1), case.options["up_depths"], strict=True):
        drops = (0.5 if level > 2 else None, 0.5)
        up = UpTransition(3, width * below, width * 2**level, depth, act, drops)
        setattr(network, f"up_tr{16 * 2**level}", up)
        below = 2**level
    network.out_tr = OutputTransition(3, 2 * width, case.classes, act)
    return network
