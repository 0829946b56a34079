"""Faster R-CNN: torchvision's."""

from collections import OrderedDict
from typing import Any

from parity.detectors import Case
from parity.detectors.torchvision import as_it_is, detections, losses, operators

__all__ = ["detections", "losses"]

CLASSES = 90
PARAMETERS = {
    "fasterrcnn_resnet50_fpn": 41_808_406,
    "fasterrcnn_resnet50_fpn_v2": 43_712_278,
    "fasterrcnn_vgg16": 138_507_572,
}
_SIZES = ((8,), (16,), (32,), (64,), (128,))
_ALL = 100_000
_COMMON = {
    "candidates": (40, 60),
    "proposals": (16, 24),
    "anchor_sampling": (_ALL, 1.0, 0.5, 0.3),
    "box_sampling": (_ALL, 1.0, 0.5, 0.5),
    "score_threshold": 0.05,
}
_PYRAMID = {"width": 8, "anchor_sizes": _SIZES}
CASES = {
    "fasterrcnn_fpn": Case(
        "fasterrcnn_resnet50_fpn",
        (2, 3, 64, 96),
        options={
            **_COMMON,
            **_PYRAMID,
            "encoder": "resnet18",
            "encoder_options": {"depths": (1, 1, 1, 1)},
            "head_hidden": (12, 10),
        },
        slow="all",
    ),
    "fasterrcnn_fpn_v2": Case(
        "fasterrcnn_resnet50_fpn_v2",
        (2, 3, 96, 64),
        options={
            **_COMMON,
            **_PYRAMID,
            "proposal_nms": 0.9,
            "score_threshold": 1e-3,
            "encoder": "resnet18",
            "encoder_options": {"depths": (1, 1, 1, 1)},
            "head_convs": (8, 6),
            "head_hidden": (12,),
        },
        slow="all",
    ),
    "fasterrcnn_vgg16": Case(
        "fasterrcnn_vgg16",
        (2, 3, 96, 128),
        options={
            **_COMMON,
            "anchor_sizes": ((16, 32, 64),),
            "encoder": "vgg11",
            "pool_size": 3,
            "head_hidden": (12, 10),
        },
    ),
}


def trunk_of(case: Case) -> Any:
    import torchvision
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.resnet import BasicBlock, ResNet

    if case.options["encoder"] == "vgg11":
        features = torchvision.models.vgg11().features[:-1]
        features.out_channels = 512
        return features
    import torch

    norm = torch.nn.BatchNorm2d if "v2" in case.variant else None
    layers = {f"layer{k}": str(k - 1) for k in range(1, 5)}
    width = case.options["width"]
    trunk = ResNet(BasicBlock, [1, 1, 1, 1])
    return BackboneWithFPN(trunk, layers, [64, 128, 256, 512], width, norm_layer=norm)


def build(name: str, case: Case) -> Any:
    operators()
    import torch
    from torchvision import ops
    from torchvision.models.detection import faster_rcnn
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.rpn import RPNHead

    options, backbone = case.options, trunk_of(case)
    sizes, width = options["anchor_sizes"], backbone.out_channels
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    second = "v2" in case.variant
    side, hidden = options.get("pool_size", 7), options["head_hidden"]
    if second:
        box_head = faster_rcnn.FastRCNNConvFCHead(
            (width, side, side), options["head_convs"], hidden, torch.nn.BatchNorm2d
        )
    else:
        box_head = faster_rcnn.TwoMLPHead(width * side**2, hidden[0])
        box_head.fc7 = torch.nn.Linear(*hidden)

    class RoIPool(ops.MultiScaleRoIAlign):
        def forward(self, maps: Any, boxes: Any, sizes: Any) -> Any:
            return ops.roi_pool(maps["0"], boxes, side, 1 / 16)

    pool = RoIPool(["0"], side, 2) if "vgg" in case.variant else None
    return faster_rcnn.FasterRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(width, anchors.num_anchors_per_location()[0], 2 if second else 1),
        rpn_pre_nms_top_n_test=options["candidates"][0],
        rpn_pre_nms_top_n_train=options["candidates"][1],
        rpn_post_nms_top_n_test=options["proposals"][0],
        rpn_post_nms_top_n_train=options["proposals"][1],
        rpn_nms_thresh=options.get("proposal_nms", 0.7),
        rpn_fg_iou_thresh=options["anchor_sampling"][2],
        rpn_batch_size_per_image=_ALL,
        rpn_positive_fraction=1.0,
        box_batch_size_per_image=_ALL,
        box_positive_fraction=1.0,
        box_fg_iou_thresh=options["box_sampling"][2],
        box_roi_pool=pool,
        box_head=box_head,
        box_predictor=faster_rcnn.FastRCNNPredictor(hidden[-1], case.classes + 1),
        box_score_thresh=options["score_threshold"],
        **as_it_is(case),
    )


def heads(network: Any, images: Any) -> dict[str, Any]:
    import torch
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.rpn import concat_box_prediction_layers

    with torch.no_grad():
        network.eval()
        sizes = [tuple(images.shape[2:])] * len(images)
        maps = network.backbone(images)
        if isinstance(maps, torch.Tensor):
            maps = OrderedDict([("0", maps)])
        logits, deltas = network.rpn.head(list(maps.values()))
        logits, deltas = concat_box_prediction_layers(logits, deltas)
        proposals, _ = network.rpn(ImageList(images, sizes), maps)
        count = network.rpn.post_nms_top_n()  # ours pads with empty boxes
        empty = torch.zeros(count, 4, dtype=images.dtype)
        proposals = [torch.cat([boxes, empty[len(boxes) :]]) for boxes in proposals]
        regions = network.roi_heads.box_head(network.roi_heads.box_roi_pool(maps, proposals, sizes))
        scores, boxes = network.roi_heads.box_predictor(regions)
    batch = len(images)
    return {
        "objectness": logits.reshape(batch, -1),
        "rpn_deltas": deltas.reshape(batch, -1, 4),
        "proposals": torch.stack(proposals),
        "logits": scores.reshape(batch, len(proposals[0]), -1),
        "deltas": boxes.reshape(batch, len(proposals[0]), -1, 4),
    }
