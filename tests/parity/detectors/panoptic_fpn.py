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
    """The semantic loss is the paper's, of logits that are enlarged to the image.

    mmdetection's takes one corner of each cell of the truth instead, so that its masks lie half a
    cell beside it.
    """
    import torch

    found = _losses(network, images, targets)
    truth = torch.stack([one["segmentation"].long() for one in targets])
    truth = torch.where(truth < network.semantic_head.num_stuff_classes + 1, truth, 255)
    logits = network.semantic_head(network.maps)["seg_preds"]
    logits = torch.nn.functional.interpolate(
        logits, truth.shape[1:], mode="bilinear", align_corners=False
    )
    loss = torch.nn.functional.cross_entropy(logits, truth, ignore_index=255)
    return {**found, "loss_semantic": 0.5 * loss}
