"""Mask R-CNN: torchvision's, whose masks stay in their boxes."""

from dataclasses import replace
from typing import Any

from parity.detectors import Case, faster_rcnn
from parity.detectors.faster_rcnn import heads
from parity.detectors.torchvision import detections, losses

__all__ = ["detections", "heads", "losses"]

CLASSES = 90
PARAMETERS = {"maskrcnn_resnet50_fpn": 44_454_513, "maskrcnn_resnet50_fpn_v2": 46_359_409}
_HEAD = {"mask_convs": (6, 8), "mask_width": 6, "mask_pool_size": 5, "max_detections": 20}


def _case(number: str, **options: Any) -> Case:
    like = faster_rcnn.CASES[f"fasterrcnn_fpn{number}"]
    return replace(
        like,
        variant=f"maskrcnn_resnet50_fpn{number}",
        options={**like.options, **_HEAD, **options},
        masks=True,
    )


CASES = {
    "maskrcnn_fpn": replace(_case(""), slow=False),
    "maskrcnn_fpn_v2": _case("_v2", mask_norm=True),
}


def build(name: str, case: Case) -> Any:
    network = faster_rcnn.build(name, case)
    from torch.nn import BatchNorm2d
    from torchvision.models.detection import mask_rcnn
    from torchvision.ops import MultiScaleRoIAlign

    options, heads = case.options, network.roi_heads
    norm = BatchNorm2d if options.get("mask_norm") else None
    convs = options["mask_convs"]
    heads.mask_roi_pool = MultiScaleRoIAlign(["0", "1", "2", "3"], options["mask_pool_size"], 2)
    heads.mask_head = mask_rcnn.MaskRCNNHeads(options["width"], convs, 1, norm_layer=norm)
    heads.mask_predictor = mask_rcnn.MaskRCNNPredictor(
        convs[-1], options["mask_width"], case.classes + 1
    )
    network.transform.postprocess = lambda found, sizes, originals: [
        {**one, "masks": one["masks"][:, 0]} for one in found
    ]
    return network
