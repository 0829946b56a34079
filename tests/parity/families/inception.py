"""`jaxvision.models.backbones.inception`, `bninception` and `inception_v4`."""

from parity.case import Case

_V3 = ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")
_V2 = ("init_block.conv1", "init_block.conv2", "stage1", "stage2", "stage3")
_V4 = tuple(f"features.{index}" for index in (2, 3, 6, 8, 10))
_RESNET = ("conv2d_2b", "conv2d_4a", "repeat", "repeat_1", "conv2d_7b")
_SHORT = {"depths": (1, 1, 1)}
CASES = {
    "bninception": Case((2, 3, 64, 97), features=tuple(f"features.{layer}" for layer in _V2)),
    "inception_v3": Case((2, 3, 107, 96), features=_V3),
    "inception_v3_fid": Case((2, 3, 107, 96), features=_V3),
    "inception_v4": Case((2, 3, 107, 96), options=_SHORT, features=_V4),
    "inception_resnet_v2": Case((2, 3, 107, 96), options=_SHORT, features=_RESNET),
}
PARAMETERS = {
    "bninception": 11_295_240,
    "inception_v3": 23_834_568,
    "inception_v3_fid": 23_834_568,
    "inception_v4": 42_679_816,
    "inception_resnet_v2": 55_843_464,
}


def build(name, case):
    if name == "bninception":
        from pytorchcv.models.bninception import bninception
        from torch import nn

        network = bninception(num_classes=case.classes)
        network.features.final_pool = nn.AdaptiveAvgPool2d(1)  # of 7x7 maps in the reference
        return network
    if name == "inception_v3_fid":
        from parity.networks.inception_fid import inception_fid

        return inception_fid(case.classes)
    from parity.references import timm, torchvision

    if name == "inception_v3":
        return torchvision().models.inception_v3(
            num_classes=case.classes,
            aux_logits=case.options.get("aux_logits", False),
            init_weights=False,
        )
    network = timm().create_model(name, num_classes=case.classes)
    if name == "inception_v4":
        network.features = network.features[:7] + network.features[10:12] + network.features[18:20]
    else:
        for stage in ("repeat", "repeat_1", "repeat_2"):
            setattr(network, stage, getattr(network, stage)[:1])
    return network
