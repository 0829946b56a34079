"""YOLO v3: mmdetection's."""

from itertools import pairwise
from typing import Any

from parity.detectors import Case
from parity.detectors.torchvision import operators

CLASSES = 80
PARAMETERS = {"yolov3": 61_949_149}
_SIZES = (((8, 10), (14, 9)), ((20, 22), (30, 18)), ((40, 36), (60, 50)))
CASES = {
    "yolov3": Case(
        "yolov3",
        (2, 3, 96, 64),
        options={
            "encoder_options": {"widths": (32, 8, 12, 16, 20, 24), "depths": (1, 1, 1, 1, 1)},
            "widths": (6, 8, 10),
            "anchors": _SIZES,
            "candidates": 90,
        },
        boxes=(6, 0),
        smaller={"bbox_head.convs_pred": 0.1},
    )
}


def build(name: str, case: Case) -> Any:
    operators()
    from parity.references import mmdet

    package, options = mmdet(), case.options
    from mmdet.models.dense_heads import base_dense_head
    from mmengine.config import ConfigDict

    base_dense_head.batched_nms = _suppress  # mmcv's is compiled
    widths, depths = options["encoder_options"]["widths"], options["encoder_options"]["depths"]

    class Darknet(package.models.Darknet):
        arch_settings = {53: (depths, tuple(pairwise(widths)))}

    package.registry.MODELS.register_module(name="Small", module=Darknet, force=True)
    neck = options["widths"][::-1]
    sigmoid = {"type": "CrossEntropyLoss", "use_sigmoid": True, "reduction": "sum"}
    config = {
        "type": "YOLOV3",
        "backbone": {"type": "Small", "norm_eval": False},
        "neck": {
            "type": "YOLOV3Neck",
            "num_scales": 3,
            "in_channels": widths[:2:-1],
            "out_channels": neck,
        },
        "bbox_head": {
            "type": "YOLOV3Head",
            "num_classes": case.classes,
            "in_channels": neck,
            "out_channels": [2 * width for width in neck],
            "anchor_generator": {
                "type": "YOLOAnchorGenerator",
                "base_sizes": options["anchors"][::-1],
                "strides": [32, 16, 8],
            },
            "bbox_coder": {"type": "YOLOBBoxCoder"},
            "featmap_strides": [32, 16, 8],
            "loss_cls": {**sigmoid, "loss_weight": 1.0},
            "loss_conf": {**sigmoid, "loss_weight": 1.0},
            "loss_xy": {**sigmoid, "loss_weight": 2.0},
            "loss_wh": {"type": "MSELoss", "loss_weight": 2.0, "reduction": "sum"},
        },
        "train_cfg": {
            "assigner": {
                "type": "GridAssigner",
                "pos_iou_thr": 0.5,
                "neg_iou_thr": 0.5,
                "min_pos_iou": 0,
            }
        },
        "test_cfg": {
            "nms_pre": options["candidates"],
            "min_bbox_size": 0,
            "score_thr": 0.05,
            "conf_thr": 0.005,
            "nms": {"type": "nms", "iou_threshold": 0.45},
            "max_per_img": 100,
        },
    }
    return package.registry.MODELS.build(ConfigDict(config))


def _suppress(boxes: Any, scores: Any, labels: Any, config: Any) -> tuple[Any, Any]:
    """mmcv's `batched_nms`, class by class.

    mmcv moves the classes apart by the largest coordinate, so that boxes that reach beyond the
    image at its left or top meet those of another class.
    """
    import torch
    from torchvision.ops.boxes import _batched_nms_vanilla

    kept = _batched_nms_vanilla(boxes, scores, labels, config.iou_threshold)
    return torch.cat([boxes, scores[:, None]], 1)[kept], kept


def _maps(network: Any, images: Any) -> Any:
    import torch

    network.train(False)
    with torch.no_grad():
        return network.bbox_head(network.neck(network.backbone(images)))[0]


def heads(network: Any, images: Any) -> dict[str, Any]:
    import torch

    size = network.bbox_head.num_attrib
    flat = [x.permute(0, 2, 3, 1).reshape(len(x), -1, size) for x in _maps(network, images)]
    raw = torch.cat(flat, 1)
    return {"box": raw[..., :4], "objectness": raw[..., 4:5], "classes": raw[..., 5:]}


def detections(network: Any, images: Any) -> list[dict[str, Any]]:
    maps = _maps(network, images)
    found = network.bbox_head.predict_by_feat(maps, [{}] * len(images))
    return [{"boxes": one.bboxes, "scores": one.scores, "labels": one.labels} for one in found]


def losses(network: Any, images: Any, targets: list[dict[str, Any]]) -> dict[str, Any]:
    from mmengine.structures import InstanceData

    network.train(True)
    maps = network.bbox_head(network.neck(network.backbone(images)))[0]
    objects = [InstanceData(bboxes=one["boxes"].float(), labels=one["labels"]) for one in targets]
    found = network.bbox_head.loss_by_feat(maps, objects, [{}] * len(images))
    return {name: sum(levels) for name, levels in found.items()}
