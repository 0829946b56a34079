"""`jaxvision.models.backbones.densenet`."""

from parity.case import Case

_BLOCKS = ("features.denseblock1", "features.denseblock2", "features.denseblock3")
_STAGES = ("features.stage1", "features.stage2", "features.post_activ")
CASES = {
    "densenet121": Case(
        (4, 3, 64, 71),
        options={"depths": (2, 2, 2, 2)},
        features=("features.relu0", *_BLOCKS, "features.relu5"),
        gradients=True,
        slow="training",
    ),
    **{
        f"densenet{name}_cifar10": Case(
            (2, 3, 32, 32), options={"depths": (2, 2, 2)}, features=_STAGES
        )
        for name in ("40_k12", "100_k12_bc")
    },
}
PARAMETERS = {
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    # With ten classes 599,050 and 769,162.
    "densenet40_k12_cifar10": 599_050 + 990 * 259,
    "densenet100_k12_bc_cifar10": 769_162 + 990 * 343,
}


def build(name, case):
    from torch import nn

    depths = case.options["depths"]
    if name == "densenet121":
        from parity.references import torchvision

        network = torchvision().models.DenseNet(32, depths, 64, num_classes=case.classes)
        network.features.add_module("relu5", nn.Threshold(0, 0))  # there a function
        return network
    from pytorchcv.models.densenet_cifar import CIFARDenseNet

    channels, width = [], 24
    for depth in depths:
        channels.append([width + 12 * (index + 1) for index in range(depth)])
        width = channels[-1][-1] // 2
    return CIFARDenseNet(channels, 24, "_bc" in name, num_classes=case.classes)
