"""YOLO v1 and v2: holocron's."""

from typing import Any

from parity.detectors import Case
from parity.detectors.torchvision import operators

CLASSES = 20
PARAMETERS = {"yolov1": 86_600_702, "yolov2": 50_655_389}
_V1 = {"stem": (4, 7, 2), "stages": ((6,), (4, 6, 6, 8), (12,), (16,))}
_V2 = {"stem": (8, 3, 1), "stages": ((10,), (12,), (16,), (20, 10, 20), (24,))}
CASES = {
    "yolov1": Case(
        "yolov1",
        (2, 3, 416, 447),  # of 7x7 cells, which the reference always has
        options={"encoder_options": _V1, "width": 10, "hidden": 12, "dropout": 0.0},
        boxes=(3, 0),
    ),
    "yolov2": Case(
        "yolov2",
        (2, 3, 96, 128),
        options={
            "encoder_options": _V2,
            "width": 24,
            "passthrough": 5,
            "anchors": ((0.1, 0.2), (0.3, 0.3), (0.5, 0.2)),
            "max_detections": 40,
        },
        boxes=(5, 0),
        smaller={"head": 0.3},
    ),
}


def build(name: str, case: Case) -> Any:
    operators()
    import torch
    from parity.references import holocron

    detection, options = holocron().models.detection, case.options
    stem, stages = options["encoder_options"]["stem"][0], options["encoder_options"]["stages"]
    if name == "yolov2":
        layout = [(widths[0], len(widths) // 2) for widths in stages]
        ratio = stages[-2][0] // options["passthrough"]
        anchors = torch.tensor(options["anchors"])
        network = detection.YOLOv2(layout, case.classes, 3, stem, anchors, ratio)
    else:
        # What is as wide as in the paper is made again, narrow.
        network = detection.YOLOv1([[1024]], case.classes, head_hidden_nodes=1)
        network.backbone = holocron().models.classification.darknet.DarknetBodyV1(stages, 3, stem)
        width, hidden = options["width"], options["hidden"]
        inputs = stages[-1][-1]
        for index, stride in enumerate((1, 2, 1, 1)):
            network.block4[2 * index] = torch.nn.Conv2d(inputs, width, 3, stride, 1)
            inputs = width
        network.classifier[1] = torch.nn.Linear(width * 7**2, hidden)
        network.classifier[4] = torch.nn.Linear(hidden, network.classifier[4].out_features)
    _mend(type(network))
    return network


def _mend(network: type) -> None:
    """Compares a box's sides with those of its own object, instead of those of all."""
    import inspect
    import textwrap

    from holocron.models.detection import yolo

    source = textwrap.dedent(inspect.getsource(yolo._YOLO._compute_losses))
    assert source.count("gt_wh.sqrt()") == 1
    found: dict[str, Any] = {}
    exec(source.replace("gt_wh.sqrt()", "gt_wh[idx_].sqrt()"), vars(yolo), found)
    network._compute_losses = found["_compute_losses"]


def heads(network: Any, images: Any) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        raw = network.eval()._forward(images)
    batch, classes, boxes = len(images), network.num_classes, network.num_anchors
    if raw.ndim == 4:
        raw = raw.reshape(batch, boxes, 5 + classes, -1).permute(0, 3, 1, 2)
        raw = raw.reshape(batch, -1, 5 + classes)
        return {"box": raw[..., :4], "objectness": raw[..., 4:5], "classes": raw[..., 5:]}
    raw = raw.reshape(batch, 49, -1)
    boxes = raw[..., : 5 * boxes].reshape(batch, -1, 5)
    return {
        "box": boxes[..., :4],
        "objectness": boxes[..., 4:],
        "classes": raw[..., -classes:],
    }


def _sides(images: Any) -> Any:
    import torch

    return torch.tensor([images.shape[3], images.shape[2]] * 2)


def detections(network: Any, images: Any) -> list[dict[str, Any]]:
    import torch

    with torch.no_grad():
        found = network.eval()(images)
    return [{**one, "boxes": one["boxes"] * _sides(images)} for one in found]


def losses(network: Any, images: Any, targets: list[dict[str, Any]]) -> dict[str, Any]:
    shares = [{**one, "boxes": one["boxes"] / _sides(images)} for one in targets]
    return {name: value.sum() for name, value in network.train()(images, shares).items()}
