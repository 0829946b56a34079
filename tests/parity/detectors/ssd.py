"""SSD and SSDLite: torchvision's."""

from functools import partial
from typing import Any

from parity.detectors import Case
from parity.detectors.torchvision import as_it_is, detections, losses, operators

__all__ = ["detections", "losses"]

CLASSES = 90
PARAMETERS = {
    "ssd300_vgg16": 35_641_826,
    "ssd512_vgg16": 37_513_116,
    "ssdlite320_mobilenet_v3_large": 3_440_060,
}
_COMMON = {"score_threshold": 0.6, "max_detections": 40, "candidates": 25}
_ROWS = (
    (3, 16, 16, False, "RE", 2),
    (3, 24, 16, False, "RE", 2),
    (5, 24, 24, True, "HS", 2),
    (5, 32, 24, False, "HS", 1),
    (5, 40, 32, True, "HS", 2),
    (5, 48, 32, True, "HS", 1),
    (5, 48, 32, True, "HS", 1),
)
CASES = {
    "ssd300_vgg16": Case(
        "ssd300_vgg16",
        (2, 3, 84, 91),  # of 21 rows the third pooling makes 11
        options={
            **_COMMON,
            "encoder": "vgg11",
            "linear": 24,
            "extras": ((8, 16, 3, 2, 1), (8, 12, 3, 1, 0)),
            "ratios": ((2,), (2, 3), (2, 3), (2,)),
            "scales": (0.1, 0.2, 0.4, 0.6, 0.9),
            "steps": (8, 16, 32, 84),
        },
        background=False,
        contrast=2.0,
    ),
    "ssdlite320_mobilenet_v3_large": Case(
        "ssdlite320_mobilenet_v3_large",
        (2, 3, 128, 112),
        options={
            **_COMMON,
            "score_threshold": 0.8,
            "encoder_options": {"rows": _ROWS, "reduced_tail": False},
            "extras": ((8, 16, 3, 2, 1),),
            "ratios": ((2, 3),) * 3,
        },
        background=False,
        contrast=2.0,
        slow="training",
    ),
}


def _vgg(options: Any) -> Any:
    import torchvision
    from torch import nn
    from torchvision.models.detection.ssd import SSDFeatureExtractorVGG

    backbone = SSDFeatureExtractorVGG(torchvision.models.vgg11().features, False)
    width = options["linear"]
    fc = nn.Sequential(
        nn.MaxPool2d(3, 1, 1),
        *(nn.Conv2d(512, width, 3, padding=6, dilation=6), nn.ReLU()),
        *(nn.Conv2d(width, width, 1), nn.ReLU()),
    )
    blocks = [nn.Sequential(*backbone.extra[0][:-1], fc)]
    for hidden, features, kernel, stride, padding in options["extras"]:
        blocks.append(
            nn.Sequential(
                *(nn.Conv2d(width, hidden, 1), nn.ReLU()),
                *(nn.Conv2d(hidden, features, kernel, stride, padding), nn.ReLU()),
            )
        )
        width = features
    backbone.extra = nn.ModuleList(blocks)
    return backbone


def _mobilenet(options: Any, norm: Any) -> Any:
    from parity.families.mobilenet_v3 import rows
    from torchvision.models import MobileNetV3
    from torchvision.models.detection.ssdlite import SSDLiteFeatureExtractorMobileNet

    trunk = MobileNetV3(rows(options["encoder_options"]["rows"]), 8, 3, norm_layer=norm)
    backbone = SSDLiteFeatureExtractorMobileNet(trunk.features, 5, norm, 0.03)
    backbone.extra = backbone.extra[: len(options["extras"])]
    return backbone


def build(name: str, case: Case) -> Any:
    operators()
    from torch.nn import BatchNorm2d
    from torchvision.models.detection import _utils, ssd
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssdlite import SSDLiteHead

    options, lite = case.options, "lite" in name
    norm = partial(BatchNorm2d, eps=0.001, momentum=0.03)
    backbone = _mobilenet(options, norm) if lite else _vgg(options)
    size = case.image[:1:-1]  # (width, height)
    boxes = DefaultBoxGenerator(
        options["ratios"],
        min_ratio=0.2,
        max_ratio=0.95,
        scales=options.get("scales"),
        steps=options.get("steps"),
    )
    head = None
    if lite:
        channels = _utils.retrieve_out_channels(backbone, size)
        counts = boxes.num_anchors_per_location()
        head = SSDLiteHead(channels, counts, case.classes + 1, norm)
    kept = as_it_is(case)
    return ssd.SSD(
        backbone,
        boxes,
        size,
        case.classes + 1,
        kept["image_mean"],
        kept["image_std"],
        head,
        options["score_threshold"],
        0.55 if lite else 0.45,
        options["max_detections"],
        topk_candidates=options["candidates"],
    )


def heads(network: Any, images: Any) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        return network.head(list(network.eval().backbone(images).values()))
