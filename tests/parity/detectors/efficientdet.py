"""EfficientDet: effdet's."""

from functools import partial
from typing import Any
from unittest import mock

from parity.detectors import Case
from parity.detectors.torchvision import operators

CLASSES = 90
PARAMETERS = {
    "tf_efficientdet_d0": 3_880_067,
    "tf_efficientdet_d1": 6_625_898,
    "tf_efficientdet_d2": 8_097_039,
    "tf_efficientdet_d3": 12_032_296,
    "tf_efficientdet_d4": 20_723_675,
    "tf_efficientdet_d5": 33_653_315,
    "tf_efficientdet_d6": 51_871_782,
    "tf_efficientdet_d7": 51_871_782,
}
LARGE = tuple(PARAMETERS)[1:]
_CUT = ((3, 1, 16, 1, 2), (5, 2, 16, 1, 2), (3, 2, 24, 1, 2), (3, 2, 32, 1, 2))
_COMMON = {
    "encoder_options": {"stages": _CUT, "width_mult": 0.5, "depth_mult": 1.0, "drop_path": 0.0},
    "width": 8,
    "max_detections": 40,
    "candidates": 300,
}
CASES = {
    "efficientdet": Case(
        "tf_efficientdet_d0",
        (2, 3, 96, 80),
        options={**_COMMON, "repeats": 1, "depth": 1, "last_level": 6},
        boxes=(3, 1),
    ),
    "efficientdet_sum": Case(
        "tf_efficientdet_d7",
        (2, 3, 64, 96),
        options={**_COMMON, "repeats": 2, "depth": 2, "last_level": 5},
        slow="all",
        saturated=True,
    ),
}


def _backbone(options: Any) -> Any:
    from timm.layers import get_act_layer
    from timm.models._efficientnet_builder import decode_arch_def, round_channels
    from timm.models.efficientnet import EfficientNetFeatures
    from torch.nn import BatchNorm2d

    stages = [
        [f"{'ds' if e == 1 else 'ir'}_r{depth}_k{k}_s{s}_e{e}_c{c}_se0.25"]
        for k, e, c, depth, s in options["stages"]
    ]
    return EfficientNetFeatures(
        decode_arch_def(stages),
        (2, 3, 4),
        round_chs_fn=partial(round_channels, multiplier=options["width_mult"]),
        pad_type="same",
        act_layer=get_act_layer("silu"),
        norm_layer=partial(BatchNorm2d, eps=1e-3),
    )


def build(name: str, case: Case) -> Any:
    operators()
    import effdet

    options = case.options
    config = effdet.get_efficientdet_config(case.variant)
    config.image_size = case.image[2:]
    config.max_level = options.get("last_level", 7)
    config.num_levels = config.max_level - 2
    config.num_classes = case.classes
    config.fpn_channels = options["width"]
    config.fpn_cell_repeats = options["repeats"]
    config.box_class_repeats = options["depth"]
    config.max_detection_points = options["candidates"]
    config.max_det_per_image = options["max_detections"]
    backbone = _backbone(options["encoder_options"])
    with mock.patch("effdet.efficientdet.create_model", return_value=backbone):
        return effdet.EfficientDet(config, pretrained_backbone=False)


def heads(network: Any, images: Any) -> dict[str, Any]:
    import torch

    def flat(levels: list[Any], size: int) -> Any:
        return torch.cat([x.movedim(1, -1).reshape(len(x), -1, size) for x in levels], 1)

    with torch.no_grad():
        classes, boxes = network.eval()(images)
    return {"class_net": flat(classes, network.config.num_classes), "box_net": flat(boxes, 4)}


def detections(network: Any, images: Any) -> list[dict[str, Any]]:
    import effdet
    import torch

    height, width = images.shape[2:]
    count = len(images)
    info = {"img_scale": torch.ones(count), "img_size": torch.tensor([[width, height]] * count)}
    with torch.no_grad():
        found = effdet.DetBenchPredict(network).eval()(images, info)
    kept = [one[one[:, 4] > 0] for one in found]
    return [
        {"boxes": one[:, :4], "scores": one[:, 4], "labels": one[:, 5].long() - 1} for one in kept
    ]


def losses(network: Any, images: Any, targets: list[dict[str, Any]]) -> dict[str, Any]:
    import effdet

    swapped = [one["boxes"].float()[:, [1, 0, 3, 2]] for one in targets]
    labels = [one["labels"] + 1 for one in targets]
    found = effdet.DetBenchTrain(network).train()(images, {"bbox": swapped, "cls": labels})
    weight = network.config.box_loss_weight
    return {"class_loss": found["class_loss"], "box_loss": weight * found["box_loss"]}
