"""FastestDet: tests/parity/networks/fastestdet.py."""

from typing import Any

from parity.detectors import Case

CLASSES = 80
PARAMETERS = {"fastestdet": 244_490}
CASES = {
    "fastestdet": Case(
        "fastestdet",
        (2, 3, 128, 160),
        options={"widths": (4, 8, 12, 16), "depths": (2, 1, 1), "max_detections": 40},
        boxes=(2, 1),
    )
}


def build(name: str, case: Case) -> Any:
    from parity.networks.fastestdet import FastestDet

    return FastestDet(case.classes, case.options["widths"], case.options["depths"])


def heads(network: Any, images: Any) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        objectness, box, classes = network.eval()(images)
    return {"objectness": objectness, "box": box, "classes": classes}


def detections(network: Any, images: Any) -> list[dict[str, Any]]:
    import torch
    from parity.detectors.torchvision import operators
    from parity.networks.fastestdet import centred

    operators()
    from torchvision.ops import batched_nms

    with torch.no_grad():
        objectness, raw, classes = network.eval()(images)
    height, width = raw.shape[1:3]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    found = []
    for one in range(len(images)):
        box = centred(raw[one], x, y, (height, width)).reshape(-1, 4) * 16
        corners = torch.cat([box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2], -1)
        likely, label = classes[one].softmax(-1).reshape(-1, classes.shape[-1]).max(-1)
        score = objectness[one].sigmoid().reshape(-1) ** 0.6 * likely**0.4
        kept = batched_nms(corners, score, label, 0.45)[:40]
        kept = kept[score[kept] > 0.001]
        found.append({"boxes": corners[kept], "scores": score[kept], "labels": label[kept]})
    return found


def losses(network: Any, images: Any, targets: list[dict[str, Any]]) -> dict[str, Any]:
    from parity.networks.fastestdet import losses as of

    return of(network.train()(images), targets)
