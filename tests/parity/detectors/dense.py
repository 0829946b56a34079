"""FCOS and RetinaNet: torchvision's."""

from functools import partial
from typing import Any

from parity.detectors import Case
from parity.detectors.torchvision import as_it_is, operators

CLASSES = 91
PARAMETERS = {
    "fcos_resnet50_fpn": 32_322_720,
    "retinanet_resnet50_fpn": 34_068_119,
    "retinanet_resnet50_fpn_v2": 38_198_935,
}
_COMMON = {"encoder": "resnet18", "encoder_options": {"depths": (1, 1, 1, 1)}, "width": 16}
_ANCHORS = {"sizes": (8, 16, 32, 64, 128), "max_detections": 100, "candidates": 40}
CASES = {
    "fcos": Case(
        "fcos_resnet50_fpn",
        (2, 3, 64, 96),
        options={**_COMMON, "groups": 8, "depth": 2, "candidates": 40},
        boxes=(3, 0),
    ),
    "retinanet": Case(
        "retinanet_resnet50_fpn",
        (2, 3, 64, 96),
        options={**_COMMON, **_ANCHORS},
        boxes=(3, 0),
        slow="all",
        saturated=True,
    ),
    "retinanet_v2": Case(
        "retinanet_resnet50_fpn_v2", (2, 3, 96, 64), options={**_COMMON, **_ANCHORS, "groups": 8}
    ),
}


def build(name: str, case: Case) -> Any:
    operators()
    import torch
    from torchvision.models.detection import fcos, retinanet
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.resnet import BasicBlock, ResNet
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    options, width = case.options, case.options["width"]
    layers = {f"layer{k}": str(k - 2) for k in (2, 3, 4)}
    extra = LastLevelP6P7(512 if "v2" in name else width, width)
    trunk = ResNet(BasicBlock, [1, 1, 1, 1])
    backbone = BackboneWithFPN(trunk, layers, [128, 256, 512], width, extra_blocks=extra)
    common = {"topk_candidates": options["candidates"], **as_it_is(case)}
    norm = partial(torch.nn.GroupNorm, options.get("groups"))
    if name == "fcos":
        depth = options["depth"]
        head = fcos.FCOSHead(32, 1, case.classes, depth)  # whose norms have 32 groups
        head.classification_head = fcos.FCOSClassificationHead(
            width, 1, case.classes, depth, norm_layer=norm
        )
        head.regression_head = fcos.FCOSRegressionHead(width, 1, depth, norm)
        return fcos.FCOS(backbone, case.classes, head=head, **common)
    sizes = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in options["sizes"])
    head = retinanet.RetinaNetHead(width, 9, case.classes, norm if "v2" in name else None)
    if "v2" in name:
        head.regression_head._loss_type = "giou"
    return retinanet.RetinaNet(
        backbone,
        case.classes,
        anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5),
        head=head,
        detections_per_img=options["max_detections"],
        **common,
    )


def heads(network: Any, images: Any) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        return network.eval().head(list(network.backbone(images).values()))


def detections(network: Any, images: Any) -> list[dict[str, Any]]:
    import torch

    with torch.no_grad():
        return network.eval()(list(images))


def losses(network: Any, images: Any, targets: list[dict[str, Any]]) -> dict[str, Any]:
    return network.train()(list(images), targets)
