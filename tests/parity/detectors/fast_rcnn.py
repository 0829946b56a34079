"""Fast R-CNN and SPP-net: torchvision's Faster R-CNN, given proposals in the place of its RPN."""

from typing import Any

from parity import detectors
from parity.detectors import Case, faster_rcnn
from parity.detectors.torchvision import as_it_is, detections, losses, operators

__all__ = ["detections", "losses"]

CLASSES = 90
PARAMETERS = {
    "fastrcnn_resnet50": 127_785_479,
    "fastrcnn_resnet50_fpn": 41_214_471,
    "fastrcnn_vgg16": 136_124_679,
    "sppnet_alexnet": 73_548_039,
    "sppnet_vgg16": 138_221_831,
}
_ALL = 100_000


def _case(variant: str, image: tuple[int, ...], slow: Any = "", **options: Any) -> Case:
    sampling = {"box_sampling": (_ALL, 1.0, 0.5, 0.5, 0.1)}
    return Case(variant, image, options={**sampling, **options}, proposals=(12, 9), slow=slow)


_VGG = {"encoder": "vgg11", "head_hidden": (12, 10)}
CASES = {
    "fastrcnn_vgg16": _case("fastrcnn_vgg16", (2, 3, 96, 128), **_VGG, pool_size=3),
    "fastrcnn_fpn": _case(
        "fastrcnn_resnet50_fpn",
        (2, 3, 64, 96),
        slow="training",
        encoder="resnet18",
        encoder_options={"depths": (1, 1, 1, 1)},
        width=8,
        head_hidden=(12, 10),
    ),
    "sppnet": _case("sppnet_vgg16", (2, 3, 96, 128), **_VGG, pool_size=(3, 2, 1)),
}


def _pool(sides: tuple[int, ...]) -> Any:
    """RoIPool once a level of a spatial pyramid, side by side."""
    from torchvision import ops

    class Pyramid(ops.MultiScaleRoIAlign):
        def forward(self, maps: Any, boxes: Any, sizes: Any) -> Any:
            import torch

            pooled = [ops.roi_pool(maps["0"], boxes, side, 1 / 16) for side in sides]
            if len(pooled) == 1:
                return pooled[0]
            return torch.cat([x.flatten(1) for x in pooled], 1)

    return Pyramid(["0"], sides[0], 2)


def build(name: str, case: Case) -> Any:
    operators()
    import torch
    from torchvision.models.detection import faster_rcnn as tv

    options, backbone = case.options, faster_rcnn.trunk_of(case)
    hidden, sides = options["head_hidden"], options.get("pool_size", 7)
    sides = (sides,) if isinstance(sides, int) else sides
    box_head = tv.TwoMLPHead(backbone.out_channels * sum(side**2 for side in sides), hidden[0])
    box_head.fc7 = torch.nn.Linear(*hidden)
    least = options["box_sampling"][4]
    network = tv.FasterRCNN(
        backbone,
        box_roi_pool=None if "fpn" in case.variant else _pool(sides),
        box_head=box_head,
        box_predictor=tv.FastRCNNPredictor(hidden[-1], case.classes + 1),
        box_batch_size_per_image=_ALL,
        box_positive_fraction=1.0,
        **as_it_is(case),
    )
    given = detectors.inputs(case)
    proposals = [
        torch.from_numpy(boxes[valid]).double()
        for boxes, valid in zip(given["proposals"], given["proposal_valid"], strict=True)
    ]
    network.rpn = _given(proposals)
    heads = network.roi_heads
    assign = heads.assign_targets_to_proposals

    def assigned(proposals: Any, boxes: Any, labels: Any) -> Any:
        from torchvision.ops import box_iou

        matched, found = assign(proposals, boxes, labels)
        for places, objects, label in zip(proposals, boxes, found, strict=True):
            if len(objects):
                label[(label == 0) & (box_iou(objects, places).amax(0) < least)] = -1
        return matched, found

    heads.assign_targets_to_proposals = assigned
    if "sppnet" in case.variant:
        network.backbone.register_forward_hook(lambda module, inputs, maps: maps.detach())
    return network


def _given(proposals: list[Any]) -> Any:
    """A module in the place of an RPN."""
    import torch

    class Given(torch.nn.Module):
        def forward(self, images: Any, features: Any, targets: Any = None) -> Any:
            return [boxes.clone() for boxes in proposals], {}

    return Given()


def heads(network: Any, images: Any) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        network.eval()
        sizes = [tuple(images.shape[2:])] * len(images)
        maps = network.backbone(images)
        maps = {"0": maps} if isinstance(maps, torch.Tensor) else maps
        proposals, _ = network.rpn(images, maps)
        count = max(map(len, proposals))  # ours pads with empty boxes
        empty = torch.zeros(count, 4, dtype=images.dtype)
        proposals = [torch.cat([boxes, empty[len(boxes) :]]) for boxes in proposals]
        roi_heads = network.roi_heads
        regions = roi_heads.box_head(roi_heads.box_roi_pool(maps, proposals, sizes))
        scores, boxes = roi_heads.box_predictor(regions)
    shape = (len(images), count)
    return {"logits": scores.reshape(*shape, -1), "deltas": boxes.reshape(*shape, -1, 4)}
