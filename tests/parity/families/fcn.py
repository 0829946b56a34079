"""`jaxvision.models.segmentation.fcn`."""

from parity.case import Case

_SMALL = {"width": 0.0625, "hidden": 24}
_ENCODER = {"encoder_options": {"depths": (1, 1, 1, 1)}}
CASES = {
    "fcn32s": Case((2, 3, 20, 33), 5, _SMALL),
    "fcn16s": Case((2, 3, 20, 33), 5, _SMALL),
    "fcn8s": Case((1, 3, 9, 5), 5, _SMALL, gradients=True, slow="training"),
    "fcn8s_atonce": Case((2, 3, 20, 33), 5, _SMALL),
    "fcn8s_resnet18": Case((3, 3, 52, 37), 5, _ENCODER, gradients=True),
}
CLASSES = 21
PARAMETERS = {
    "fcn32s": 136_152_917,
    "fcn16s": 134_815_994,
    "fcn8s": 134_489_759,
    "fcn8s_atonce": 134_489_759,
    "fcn8s_resnet18": 11_322_399,
    "fcn8s_resnet50": 23_710_367,
}


def build(name, case):
    from parity.references import torchfcn, torchvision
    from torch import nn

    if "resnet" in name:
        from parity.networks.fcn import FCNPyramid

        resnet = torchvision().models.resnet
        block = resnet.BasicBlock if name.endswith("18") else resnet.Bottleneck
        trunk = resnet.ResNet(block, case.options["encoder_options"]["depths"])
        trunk.fc = nn.Identity()
        channels = [n * block.expansion for n in (128, 256, 512)]
        return FCNPyramid(trunk, channels, case.classes)
    classes = {"fcn8s_atonce": "FCN8sAtOnce", "fcn8s": "FCN8s", "fcn16s": "FCN16s"}
    reference = getattr(torchfcn(), classes.get(name, "FCN32s"))
    return narrowed(reference, case)


def narrowed(reference, case):
    """torchfcn's network with fewer channels, made without the memory for all."""
    import torch
    from torch import nn

    with torch.device("meta"):
        network = reference(case.classes)
    width, hidden = case.options["width"], case.options["hidden"]

    def fewer(channels):
        return {3: 3, 4096: hidden, case.classes: case.classes}.get(
            channels, round(channels * width)
        )

    for name, layer in list(network.named_children()):
        if isinstance(layer, nn.Conv2d):
            size, padding = layer.kernel_size, layer.padding
            channels = fewer(layer.in_channels), fewer(layer.out_channels)
            setattr(network, name, nn.Conv2d(*channels, size, padding=padding))
        if isinstance(layer, nn.ConvTranspose2d):
            layer.to_empty(device="cpu")
    return network
