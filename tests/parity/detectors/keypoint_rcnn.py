"""Keypoint R-CNN: torchvision's."""

from dataclasses import replace
from typing import Any

from parity.detectors import Case, faster_rcnn
from parity.detectors.faster_rcnn import heads
from parity.detectors.torchvision import detections as _detections
from parity.detectors.torchvision import losses

__all__ = ["heads", "losses"]

CLASSES = 1
PARAMETERS = {"keypointrcnn_resnet50_fpn": 59_190_378}
_LIKE = faster_rcnn.CASES["fasterrcnn_fpn"]
CASES = {
    "keypointrcnn_fpn": replace(
        _LIKE,
        variant="keypointrcnn_resnet50_fpn",
        classes=2,
        options={
            **_LIKE.options,
            "keypoints": 3,
            "keypoint_convs": (8, 6),
            "keypoint_pool_size": 5,
            "max_detections": 20,
        },
        keypoints=3,
        slow="",
    ),
}


def build(name: str, case: Case) -> Any:
    network = faster_rcnn.build(name, case)
    from torchvision.models.detection import keypoint_rcnn
    from torchvision.ops import MultiScaleRoIAlign

    options, heads = case.options, network.roi_heads
    convs = options["keypoint_convs"]
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], options["keypoint_pool_size"], 2)
    heads.keypoint_roi_pool = pool
    heads.keypoint_head = keypoint_rcnn.KeypointRCNNHeads(options["width"], convs)
    heads.keypoint_predictor = keypoint_rcnn.KeypointRCNNPredictor(convs[-1], options["keypoints"])
    return network


def detections(network: Any, images: Any) -> list[dict[str, Any]]:
    """The third number of a key point is the height of its heat map."""
    import torch

    found = _detections(network, images)
    for one in found:
        heights = one.pop("keypoints_scores")
        one["keypoints"] = torch.cat([one["keypoints"][..., :2], heights[..., None]], -1)
    return found
