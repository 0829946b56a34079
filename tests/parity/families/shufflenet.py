"""`jaxvision.models.backbones.shufflenet`."""

from parity.case import Case

_V1 = (
    *("features.init_block.activ", "features.init_block"),
    *("features.stage1", "features.stage2", "features.stage3"),
)
_V2 = ("conv1", "maxpool", "stage2", "stage3", "stage4")
CASES = {
    "shufflenet_g3_w1": Case((2, 3, 64, 71), options={"depths": (2, 2, 2)}, features=_V1),
    "shufflenet_v2_x1_0": Case((2, 3, 64, 71), options={"depths": (2, 2, 2)}, features=_V2),
}
PARAMETERS = {
    "shufflenet_g1_w1": 1_531_936,
    "shufflenet_g2_w1": 1_733_848,
    "shufflenet_g3_w1": 1_865_728,
    "shufflenet_g4_w1": 1_968_344,
    "shufflenet_g8_w1": 2_434_768,
    "shufflenet_v2_x0_5": 1_366_792,
    "shufflenet_v2_x1_0": 2_278_604,
    "shufflenet_v2_x1_5": 3_503_624,
    "shufflenet_v2_x2_0": 7_393_996,
}


def build(name, case):
    from parity.references import timm, torchvision

    depths = case.options["depths"]
    if name == "shufflenet_v2_x1_0":
        widths = [24, 116, 232, 464, 1024]
        return torchvision().models.ShuffleNetV2([*depths], widths, case.classes)
    from pytorchcv.models.shufflenet import ShuffleNet

    channels = [[240 * 2**stage] * depth for stage, depth in enumerate(depths)]
    network = ShuffleNet(channels, 24, 3, num_classes=case.classes)
    network.features.final_pool = timm().layers.SelectAdaptivePool2d()  # there of 7x7
    return network
