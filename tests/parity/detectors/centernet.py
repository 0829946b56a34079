"""CenterNet: mmdetection's, with plain convolutions; and for key points, after its authors' code.

What mmdetection lacks, the heads, losses and decoding of key points, is written here from the paper
and from the rules of https://github.com/xingyizhou/CenterNet (`multi_pose`).
"""

from dataclasses import replace
from typing import Any

from parity.detectors import Case

CLASSES = 80
PARAMETERS = {
    "centernet_resnet18": 14_219_092,
    "centernet_resnet50": 30_089_556,
    # families/hourglass.py's without its scores, and three heads on 256 channels.
    "centernet_hourglass2": 6_730_912 - 12_576 + 442_560 + 5_460,
    # Three heads more, of 17 key points: 3 x (64 x 64 x 9 + 64) + 65 x (34 + 17 + 2).
    "centernet_pose_resnet18": 14_219_092 + 114_229,
    "centernet_pose_resnet50": 30_089_556 + 114_229,
    "centernet_pose_hourglass2": 6_730_912 - 12_576 + 442_560 + 5_460 + 446_005,
}
_BOXES = Case(
    "centernet_resnet18",
    (2, 3, 64, 96),
    options={
        "encoder_options": {"depths": (1, 1, 1, 1)},
        "upsampling": (12, 10, 8),
        "head_width": 6,
        "max_detections": 20,
    },
    boxes=(5, 3),
)
CASES = {
    "centernet": _BOXES,
    "centernet_hourglass": Case(
        "centernet_hourglass2",
        (2, 3, 64, 96),
        options={
            "encoder_options": {"features": 16, "depth": 2},
            "head_width": 6,
            "max_detections": 20,
        },
        boxes=(5, 3),
        slow="training",
        smaller={"bbox_head.wh_head.2": 0.1, "bbox_head.heatmap_head.2": 0.05},
    ),
    "centernet_pose": replace(
        _BOXES,
        variant="centernet_pose_resnet18",
        options={**_BOXES.options, "keypoints": 3},
        keypoints=3,
        smaller={"bbox_head.hps_head.2": 0.2, "bbox_head.hp_offset": 0.1},
    ),
}


def build(name: str, case: Case) -> Any:
    from parity.references import mmdet

    package, options = mmdet(), case.options
    import torch
    from mmengine.config import ConfigDict
    from torchvision.models.resnet import BasicBlock, ResNet

    hourglass = "hourglass" in case.variant
    filters = options.get("upsampling", (256, 128, 64))
    width = options["encoder_options"]["features"] if hourglass else filters[-1]
    config = {
        "type": "CenterNet",
        "backbone": {"type": "ResNet", "depth": 18, "norm_eval": False},
        "neck": {
            "type": "CTResNetNeck",
            "in_channels": 512,
            "num_deconv_filters": filters,
            "num_deconv_kernels": (4,) * len(filters),
            "use_dcn": False,
        },
        "bbox_head": {
            "type": "CenterNetHead",
            "num_classes": case.classes,
            "in_channels": width,
            "feat_channels": options.get("head_width", 64),
            "loss_center_heatmap": {"type": "GaussianFocalLoss", "loss_weight": 1.0},
            "loss_wh": {"type": "L1Loss", "loss_weight": 0.1},
            "loss_offset": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "test_cfg": {"topk": options["max_detections"], "local_maximum_kernel": 3},
    }
    network = package.registry.MODELS.build(ConfigDict(config))
    if hourglass:
        network.backbone, network.neck = _hourglass(options["encoder_options"]), torch.nn.Identity()
        return network
    trunk = ResNet(BasicBlock, options["encoder_options"]["depths"])
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        setattr(network.backbone, stage, getattr(trunk, stage))
    if case.keypoints:
        head = network.bbox_head
        for part, outputs in (
            ("hps", 2 * case.keypoints), ("hm_hp", case.keypoints), ("hp_offset", 2)
        ):  # fmt: skip
            layers = head._build_head(filters[-1], options.get("head_width", 64), outputs)
            setattr(head, f"{part}_head", layers)
    return network


def _hourglass(options: Any) -> Any:
    """Two stacks, of which the last map is given; nothing is scored on the way."""
    from parity.networks import hourglass
    from torch.nn import functional as F

    class Trunk(hourglass.HourglassNet):
        def __init__(self) -> None:
            super().__init__(1, 2, **options)
            del self.score, self.score_

        def forward(self, x: Any) -> Any:
            x = self.layer1(F.relu(self.bn1(self.conv1(x))))
            x = self.layer3(self.layer2(F.max_pool2d(x, 2)))
            first, second = (
                lambda x, k=k: self.fc[k](self.res[k](self.hg[k](x))) for k in range(2)
            )
            return (second(x + self.fc_[0](first(x))),)

    return Trunk()


def _outputs(network: Any, images: Any, train: bool) -> tuple[Any, dict[str, Any]]:
    """(what the heads of boxes put out, what those of key points do [b, c, h, w], if any)."""
    network.train(train)
    x, head = network.neck(network.backbone(images)), network.bbox_head
    names = ("hps", "hm_hp", "hp_offset") if hasattr(head, "hps_head") else ()
    return head(x), {name: getattr(head, f"{name}_head")(x[0]) for name in names}


def heads(network: Any, images: Any) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        outputs, points = _outputs(network, images, False)
    (heatmap,), (wh,), (offset,) = outputs
    every = {"heatmap": torch.logit(heatmap), "wh": wh, "offset": offset, **points}
    return {name: value.permute(0, 2, 3, 1) for name, value in every.items()}


def _metas(images: Any) -> list[dict[str, Any]]:
    size = tuple(images.shape[2:])
    return [{"batch_input_shape": size, "border": [0.0] * 4, "img_shape": size}] * len(images)


def detections(network: Any, images: Any) -> list[dict[str, Any]]:
    import torch

    with torch.no_grad():
        outputs, maps = _outputs(network, images, False)
        found = network.bbox_head.predict_by_feat(*outputs, _metas(images), rescale=False)
        listed = [{"boxes": f.bboxes, "scores": f.scores, "labels": f.labels} for f in found]
        for image, one in enumerate(listed if maps else ()):
            of_image = {name: value[image] for name, value in maps.items()}
            heat = outputs[0][0][image]
            one["keypoints"] = _keypoints(one, heat, of_image, images.shape[2] / heat.shape[1])
    return listed


def _keypoints(found: dict[str, Any], heat: Any, maps: dict[str, Any], stride: float) -> Any:
    """(x, y, height) of each key point of each object of an image."""
    import torch
    from mmdet.models.utils.gaussian_target import get_local_maximum

    _, height, width = heat.shape
    centres = torch.topk(get_local_maximum(heat[None]).flatten(), len(found["boxes"])).indices
    peaks = get_local_maximum(maps["hm_hp"].sigmoid()[None])[0]
    count = len(peaks)
    points = torch.zeros(len(centres), count, 3, dtype=heat.dtype)
    for number, (index, box) in enumerate(zip(centres.tolist(), found["boxes"])):
        y, x = divmod(index % (height * width), width)
        x0, y0, x1, y1 = (box / stride).tolist()
        for k in range(count):
            guess = maps["hps"][2 * k : 2 * k + 2, y, x] + torch.tensor([x, y])
            best = (0.3 * max(x1 - x0, y1 - y0), None, 0.0)
            nearest = (float("inf"), None, 0.0)
            scores, places = torch.topk(peaks[k].flatten(), min(100, height * width))
            for score, place in zip(scores.tolist(), places.tolist()):
                row, column = divmod(place, width)
                peak = maps["hp_offset"][:, row, column] + torch.tensor([column, row])
                away = (peak - guess).norm().item()
                if score > 0.1 and away < nearest[0]:
                    nearest = away, peak, score
            if nearest[1] is not None and nearest[0] <= best[0]:
                px, py = nearest[1].tolist()
                if x0 <= px <= x1 and y0 <= py <= y1:
                    best = nearest
            place = guess if best[1] is None else best[1]
            points[number, k] = torch.cat([place * stride, torch.tensor([best[2]])])
    return points


def losses(network: Any, images: Any, targets: list[dict[str, Any]]) -> dict[str, Any]:
    from mmengine.structures import InstanceData

    outputs, maps = _outputs(network, images, True)
    truth = [InstanceData(bboxes=one["boxes"], labels=one["labels"]) for one in targets]
    found = network.bbox_head.loss_by_feat(*outputs, truth, _metas(images))
    return {**found, **_point_losses(maps, targets, images.shape[2:])} if maps else found


def _point_losses(maps: dict[str, Any], targets: list[dict[str, Any]], size: Any) -> dict[str, Any]:
    import torch
    from mmdet.models.losses.gaussian_focal_loss import GaussianFocalLoss
    from mmdet.models.utils.gaussian_target import gaussian_radius, gen_gaussian_target

    heat = maps["hm_hp"]
    height, width = heat.shape[2:]
    scale = torch.tensor([width / size[1], height / size[0]], dtype=heat.dtype)
    wanted, away, off, number = torch.zeros_like(heat), 0.0, 0.0, 0
    for image, one in enumerate(targets):
        for box, points in zip(one["boxes"], one["keypoints"].to(heat.dtype)):
            low, high = box[:2] * scale, box[2:] * scale
            x, y = ((low + high) / 2).int().tolist()
            radius = max(0, int(gaussian_radius((high - low).flip(0).tolist(), 0.3)))
            for k, point in enumerate(points):
                place = point[:2] * scale
                column, row = torch.floor(place).int().tolist()
                if point[2] <= 0 or not (0 <= column < width and 0 <= row < height):
                    continue
                number += 2
                gen_gaussian_target(wanted[image, k], [column, row], radius)
                guess = maps["hps"][image, 2 * k : 2 * k + 2, y, x]
                away = away + (guess - (place - torch.tensor([x, y]))).abs().sum()
                shift = maps["hp_offset"][image, :, row, column]
                off = off + (shift - (place - torch.tensor([column, row]))).abs().sum()
    peaks = max(1, int(wanted.eq(1).sum()))
    focal = GaussianFocalLoss()(heat.sigmoid(), wanted, avg_factor=peaks)
    return {"loss_hps": away / number, "loss_hm_hp": focal, "loss_hp_offset": off / number}
