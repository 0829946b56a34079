"""R-FCN: assembled from torchvision's parts around a ResNet whose last stage is dilated."""

from typing import Any
from unittest import mock

from parity.detectors import Case, faster_rcnn, torchvision
from parity.detectors.torchvision import as_it_is, detections, operators

__all__ = ["detections"]

CLASSES = 20
# Without the RPN, and that.
PARAMETERS = {
    "rfcn_resnet50": 26_861_833 + 9_484_333,
    "rfcn_resnet101": 45_853_961 + 9_484_333,
}
_ALL = 100_000
_OPTIONS = {
    "encoder": "resnet50",
    "encoder_options": {"depths": (1, 1, 1, 2)},
    "width": 16,
    "bins": 3,
    "anchor_sizes": ((16, 32, 64),),
    "candidates": (40, 60),
    "proposals": (16, 24),
    "anchor_sampling": (_ALL, 1.0, 0.5, 0.3),
    "box_sampling": (_ALL, 1.0, 0.5, 0.5),
    "nms_threshold": 0.5,
}
CASES = {
    "rfcn": Case("rfcn_resnet101", (2, 3, 96, 128), options=_OPTIONS, slow="all"),
    "rfcn_hard": Case("rfcn_resnet50", (2, 3, 96, 128), options={**_OPTIONS, "hard_examples": 7}),
}


def build(name: str, case: Case) -> Any:
    operators()
    import torch
    from torchvision import ops
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.detection import faster_rcnn as tv
    from torchvision.models.detection import rpn
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.resnet import Bottleneck, ResNet

    options, outputs = case.options, case.classes + 1
    depths, bins, width = options["encoder_options"]["depths"], options["bins"], options["width"]

    class Trunk(torch.nn.Module):
        """The last two stages, of which the RPN sees the first."""

        out_channels = 1024

        def __init__(self) -> None:
            super().__init__()
            network = ResNet(
                Bottleneck, list(depths), replace_stride_with_dilation=[False, False, True]
            )
            self.body = IntermediateLayerGetter(network, {"layer3": "0", "layer4": "1"})

        def forward(self, images: Any) -> Any:
            return self.body(images)

    class RPN(rpn.RegionProposalNetwork):
        def forward(self, images: Any, features: Any, targets: Any = None) -> Any:
            return super().forward(images, {"0": features["0"]}, targets)

    class Head(rpn.RPNHead):
        def forward(self, x: Any) -> Any:
            return super().forward(x[:1])

    anchors = AnchorGenerator(options["anchor_sizes"], ((0.5, 1.0, 2.0),))
    network = tv.FasterRCNN(
        Trunk(),
        rpn_anchor_generator=anchors,
        rpn_head=Head(1024, anchors.num_anchors_per_location()[0]),
        rpn_pre_nms_top_n_test=options["candidates"][0],
        rpn_pre_nms_top_n_train=options["candidates"][1],
        rpn_post_nms_top_n_test=options["proposals"][0],
        rpn_post_nms_top_n_train=options["proposals"][1],
        rpn_fg_iou_thresh=options["anchor_sampling"][2],
        rpn_batch_size_per_image=_ALL,
        rpn_positive_fraction=1.0,
        box_roi_pool=ops.MultiScaleRoIAlign(["1"], bins, 2),
        box_head=torch.nn.Identity(),
        box_predictor=torch.nn.Identity(),
        box_batch_size_per_image=_ALL,
        box_positive_fraction=1.0,
        box_nms_thresh=options["nms_threshold"],
        **as_it_is(case),
    )
    network.rpn.__class__ = RPN
    network.hardest = options.get("hard_examples", 0)
    heads = network.roi_heads
    heads.new = torch.nn.Conv2d(2048, width, 1)
    heads.cls = torch.nn.Conv2d(width, bins**2 * outputs, 1)
    heads.reg = torch.nn.Conv2d(width, bins**2 * 4, 1)

    def vote(maps: Any, boxes: Any, sizes: Any) -> Any:
        x = heads.new(maps["1"]).relu()
        return [
            ops.ps_roi_pool(layer(x), boxes, bins, 1 / 16).mean((2, 3))
            for layer in (heads.cls, heads.reg)
        ]

    del heads.box_roi_pool, heads.box_predictor
    heads.box_roi_pool = vote
    heads.box_predictor = lambda votes: (votes[0], votes[1].repeat(1, outputs))
    return network


def heads(network: Any, images: Any) -> dict[str, Any]:
    found = faster_rcnn.heads(network, images)
    return {**found, "deltas": found["deltas"][:, :, :1]}


def losses(network: Any, images: Any, targets: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the proposals of each image with the highest losses, if only those count."""
    import torch
    from torch.nn import functional
    from torchvision.models.detection import roi_heads

    def of_hardest(logits: Any, deltas: Any, labels: Any, wanted: Any) -> tuple[Any, Any]:
        counts = [len(one) for one in labels]
        labels, wanted = torch.cat(labels), torch.cat(wanted)
        entropy = functional.cross_entropy(logits, labels, reduction="none")
        options = {"beta": 1 / 9, "reduction": "none"}
        distance = functional.smooth_l1_loss(deltas[:, :4], wanted, **options).sum(1)
        distance = distance * (labels > 0)
        order = [
            loss.argsort(descending=True)[: network.hardest] + sum(counts[:k])
            for k, loss in enumerate((entropy + distance).detach().split(counts))
        ]
        kept = torch.cat(order)
        return entropy[kept].mean(), distance[kept].mean()

    if not network.hardest:
        return torchvision.losses(network, images, targets)
    with mock.patch.object(roi_heads, "fastrcnn_loss", of_hardest):
        return torchvision.losses(network, images, targets)
