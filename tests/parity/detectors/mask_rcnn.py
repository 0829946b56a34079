"""Mask R-CNN: torchvision's, whose masks stay in their boxes."""

from dataclasses import replace
from typing import Any

from parity.detectors import Case, faster_rcnn
from parity.detectors.faster_rcnn import heads
from parity.detectors.torchvision import detections, losses

__all__ = ["detections", "heads", "losses"]

CLASSES = 90
PARAMETERS = {
    "maskrcnn_resnet50_fpn": 44_454_513,
    "maskrcnn_resnet50_fpn_v2": 46_359_409,
    # ResNet-50, RPN on 1024 channels with 15 anchors, predictors of boxes and masks on 2048.
    "maskrcnn_resnet50_c4": 23_508_032 + 9_515_083 + 932_295 + 2_120_795,
}
_HEAD = {"mask_convs": (6, 8), "mask_width": 6, "mask_pool_size": 5, "max_detections": 20}


def _case(number: str, **options: Any) -> Case:
    like = faster_rcnn.CASES[f"fasterrcnn_fpn{number}"]
    return replace(
        like,
        variant=f"maskrcnn_resnet50_fpn{number}",
        options={**like.options, **_HEAD, **options},
        masks=True,
        slow="training",
    )


_C4 = {
    "encoder_options": {"depths": (1, 1, 1), "bottleneck": True},
    "encoder": "resnet50",
    "anchor_sizes": ((16, 32, 64),),
    "pool_size": 4,
    "head_blocks": 1,
    "candidates": (40, 60),
    "proposals": (16, 24),
    "anchor_sampling": (100_000, 1.0, 0.5, 0.3),
    "box_sampling": (100_000, 1.0, 0.5, 0.5),
}
CASES = {
    "maskrcnn_c4": Case(
        "maskrcnn_resnet50_c4",
        (2, 3, 64, 96),
        options={**_C4, "mask_width": 6, "mask_pool_size": 4, "max_detections": 20},
        masks=True,
    ),
    "maskrcnn_fpn": _case(""),  # its training step is part of panoptic_fpn's
    "maskrcnn_fpn_v2": _case("_v2", mask_norm=True),
}


def build(name: str, case: Case) -> Any:
    if case.variant.endswith("c4"):
        return _with_last_stage(case)
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
    return _masks_in_boxes(network)


def _masks_in_boxes(network: Any) -> Any:
    network.transform.postprocess = lambda found, sizes, originals: [
        {**one, "masks": one["masks"][:, 0]} for one in found
    ]
    return network


def _with_last_stage(case: Case) -> Any:
    """A ResNet whose last stage sees regions, for boxes and masks alike; norms keep statistics."""
    faster_rcnn.operators()
    import torch
    from torchvision.models.detection import MaskRCNN, mask_rcnn
    from torchvision.models.detection import faster_rcnn as parts
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.resnet import Bottleneck, ResNet
    from torchvision.ops import MultiScaleRoIAlign

    options = case.options
    depths = options["encoder_options"]["depths"]
    resnet = ResNet(Bottleneck, [*depths, options["head_blocks"]])
    stage = resnet.layer4
    del resnet.layer4, resnet.fc

    class Trunk(torch.nn.Module):
        out_channels = 1024

        def __init__(self) -> None:
            super().__init__()
            self.body = resnet

        def forward(self, x: Any) -> Any:
            body = self.body
            x = body.maxpool(body.relu(body.bn1(body.conv1(x))))
            return body.layer3(body.layer2(body.layer1(x)))

    class Kept(MaskRCNN):
        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            for module in self.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()
            return self

    sizes = options["anchor_sizes"]
    network = Kept(
        Trunk(),
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        rpn_pre_nms_top_n_test=options["candidates"][0],
        rpn_pre_nms_top_n_train=options["candidates"][1],
        rpn_post_nms_top_n_test=options["proposals"][0],
        rpn_post_nms_top_n_train=options["proposals"][1],
        rpn_fg_iou_thresh=options["anchor_sampling"][2],
        rpn_batch_size_per_image=options["anchor_sampling"][0],
        rpn_positive_fraction=1.0,
        box_batch_size_per_image=options["box_sampling"][0],
        box_positive_fraction=1.0,
        box_roi_pool=MultiScaleRoIAlign(["0"], options["pool_size"], 2),
        box_head=torch.nn.Identity(),
        box_predictor=parts.FastRCNNPredictor(2048, case.classes + 1),
        mask_roi_pool=MultiScaleRoIAlign(["0"], options["mask_pool_size"], 2),
        mask_head=torch.nn.Identity(),
        mask_predictor=mask_rcnn.MaskRCNNPredictor(2048, options["mask_width"], case.classes + 1),
        **faster_rcnn.as_it_is(case),
    )
    network.roi_heads.res5 = stage
    network.roi_heads.box_head.forward = lambda x: stage(x).mean((2, 3))
    network.roi_heads.mask_head.forward = stage.forward
    return _masks_in_boxes(network)
