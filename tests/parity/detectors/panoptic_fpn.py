"""Panoptic FPN: torchvision's Mask R-CNN, and on its pyramid mmdetection's `PanopticFPNHead`."""

from dataclasses import replace
from typing import Any

from parity.detectors import Case, mask_rcnn
from parity.detectors.mask_rcnn import detections
from parity.detectors.torchvision import losses as _losses

__all__ = ["detections"]

CLASSES = 80
PARAMETERS = {"panoptic_fpn_resnet50": 44_400_693 + 1_630_774}
_LIKE = mask_rcnn.CASES["maskrcnn_fpn"]
CASES = {
    "panoptic_fpn": replace(
        _LIKE,
        variant="panoptic_fpn_resnet50",
        options={**_LIKE.options, "stuff_classes": 4, "semantic_width": 6, "semantic_groups": 2},
        stuff=4,
        slow="",
    ),
}


def build(name: str, case: Case) -> Any:
    network = mask_rcnn.build(name, case)
    from parity.references import mmdet

    options = case.options
    network.semantic_head = mmdet().models.seg_heads.PanopticFPNHead(
        num_things_classes=case.classes,
        num_stuff_classes=case.stuff,
        in_channels=options["width"],
        inner_channels=options["semantic_width"],
        norm_cfg={"type": "GN", "num_groups": options["semantic_groups"]},
        loss_seg={
            "type": "CrossEntropyLoss",
            "ignore_index": 255,
            "loss_weight": 0.5,
            "avg_non_ignore": True,
        },
    )

    def keep(module: Any, images: Any, maps: dict[str, Any]) -> None:
        network.maps = list(maps.values())

    network.backbone.register_forward_hook(keep)
    return network


def heads(network: Any, images: Any) -> dict[str, Any]:
    import torch

    found = mask_rcnn.heads(network, images)
    with torch.no_grad():
        semantic = network.semantic_head(network.maps)["seg_preds"]
    return {**found, "semantic": semantic.permute(0, 2, 3, 1)}


def losses(network: Any, images: Any, targets: list[dict[str, Any]]) -> dict[str, Any]:
    """Of ours' classes of pixels the last is of all things; mmdetection's come after the things."""
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import PixelData

    found = _losses(network, images, targets)
    head, samples = network.semantic_head, []
    for one in targets:
        classes = one["segmentation"].long()
        moved = torch.where(classes < head.num_stuff_classes, classes + head.num_things_classes, 0)
        moved = torch.where(classes == 255, classes, moved)
        samples.append(DetDataSample(gt_sem_seg=PixelData(sem_seg=moved[None])))
    return {**found, "loss_semantic": head.loss(network.maps, samples)["loss_seg"]}
