"""OverFeat and the sliding window: tests/parity/networks/overfeat.py."""

from typing import Any

from parity.detectors import Case

# With the background 1000 outputs, as in the paper: its table 4 says 145 M and 144 M of the
# classifiers; then the regressors, of 1024 channels at 6x6 and 5x5 places.
CLASSES = 999
_BOXES = 4096 + 4096 * 1024 + 1024 + 1024 * 4 + 4
PARAMETERS = {
    "overfeat_fast": 145_920_872 + 36 * 1024 * 4096 + _BOXES,
    "overfeat_accurate": 144_656_488 + 25 * 1024 * 4096 + _BOXES,
    "sliding_window": 61_100_840,  # torchvision's AlexNet
}
_LAYERS = ((6, 5, 2, 0, 2), (8, 3, 1, 1, 0), (10, 3, 1, 1, 2))
_SMALL = {"layers": _LAYERS, "kernel": 3, "hidden": (12, 10), "box_hidden": (9, 7)}
_SCALES = {"dropout": 0.0, "scales": (1.0, 0.8, 0.6), "candidates": 60, "max_detections": 30}
CASES = {
    "overfeat_fast": Case(
        "overfeat_fast", (2, 3, 88, 104), options={**_SMALL, **_SCALES}, background=False
    ),
    "overfeat_accurate": Case(
        "overfeat_accurate",
        (2, 3, 88, 104),
        options={**_SMALL, **_SCALES, "class_specific": True, "fine": True},
        slow="all",
        background=False,
    ),
    "sliding_window": Case(
        "sliding_window",
        (2, 3, 150, 180),
        options={
            **{"encoder_options": {"widths": (4, 6, 8, 10, 12)}, "kernel": 2, "hidden": (12, 10)},
            **{**_SCALES, "scales": (1.0, 0.7)},
        },
        slow="training",
        background=False,
    ),
}


def build(name: str, case: Case) -> Any:
    import torch
    from parity.networks.overfeat import OverFeat, trunk

    options, apart = case.options, 8
    window = (4 * options["kernel"] - 1) * 2 + 5
    if encoded := "encoder_options" in options:
        from torchvision.models import alexnet

        features, before = alexnet().features, 3
        window, apart = 32 * options["kernel"], 32
        for index, width in zip((0, 3, 6, 8, 10), options["encoder_options"]["widths"]):
            old = features[index]
            features[index] = torch.nn.Conv2d(
                before, width, old.kernel_size, old.stride, old.padding
            )
            before = width
    else:
        features, before = trunk(options["layers"]), options["layers"][-1][0]
    boxes = () if encoded else (*options["box_hidden"], 4)
    if options.get("class_specific"):
        boxes = (*boxes[:-1], 4 * case.classes)
    network = OverFeat(
        features,
        before,
        case.classes,
        options["kernel"],
        options["hidden"],
        boxes,
        window,
        apart,
        options["scales"],
        encoded,
    )
    if options.get("fine"):
        features[-1].stride, network.apart = 1, 4
        for head in (network.classifier, network.regressor):
            head[0].dilation = (2, 2)
    return network


def heads(network: Any, images: Any) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        logits, coded, _ = network.eval()(images)
    return {"cls_logits": logits} | ({} if coded is None else {"bbox_regression": coded})


def detections(network: Any, images: Any) -> list[dict[str, Any]]:
    import torch
    from parity.detectors.torchvision import operators

    operators()
    from torchvision.ops import batched_nms, clip_boxes_to_image

    with torch.no_grad():
        logits, coded, windows = network.eval()(images)
    found = []
    for one in range(len(images)):
        scores, index = logits[one].softmax(-1)[:, 1:].flatten().sort(descending=True)
        scores, index = scores[:60], index[:60]
        boxes = network.decoded(None if coded is None else coded[one], windows)
        boxes = clip_boxes_to_image(boxes.flatten(0, 1)[index], images.shape[2:])
        labels = index % network.classes
        sure = scores > 0.05
        boxes, scores, labels = boxes[sure], scores[sure], labels[sure]
        kept = batched_nms(boxes, scores, labels, 0.5)[:30]
        found.append({"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]})
    return found


def losses(network: Any, images: Any, targets: list[dict[str, Any]]) -> dict[str, Any]:
    from parity.detectors.torchvision import operators
    from parity.networks.overfeat import losses as of

    operators()
    return of(network.train(), images, targets, 3)
