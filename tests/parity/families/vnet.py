"""`jaxvision.models.segmentation.vnet`."""

from parity.case import Case

_SHALLOW = {"width": 4, "depths": (1, 2, 1), "up_depths": (1, 2)}
CASES = {
    "vnet": Case((1, 1, 16, 16, 32), 3, {"width": 4}),
    "vnet_shallow": Case((2, 1, 8, 16, 8), 3, _SHALLOW, gradients=True, variant="vnet"),
}
CLASSES = 2
PARAMETERS = {"vnet": 45_597_898}


def build(name, case):
    from monai.networks.nets import VNet
    from parity.networks import vnet

    if name == "vnet_shallow":
        return vnet.VNet(case.classes, **case.options)
    # MONAI's is 16 wide; its parts are replaced by narrower ones of their kind.
    network = VNet(3, 1, case.classes)
    narrow = vnet.VNet(case.classes, depths=(1, 1, 2, 3, 2), up_depths=(2, 2, 1, 1), **case.options)
    for part, module in narrow.named_children():
        assert hasattr(network, part)
        setattr(network, part, module)
    return network
