"""Boxes on which detection's operations and losses are compared with other libraries'.

    python tests/parity/detection_ops.py

writes detection_ops.npz. It wants a torchvision whose compiled operators load (0.28.0 beside a CPU
build of torch has none; 0.29.1 beside torch 2.14.1 has), and the files of effdet 0.4.1 and mmdet
3.3.0, without what they depend on. The tests import the inputs from here, and need none of it.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

PATH = Path(__file__).parent / "detection_ops.npz"
WEIGHTS = {"rcnn": (1.0, 1.0, 1.0, 1.0), "ssd": (10.0, 10.0, 5.0, 5.0)}
THRESHOLDS = (0.3, 0.5, 0.7)
CELL = {  # torchvision's AnchorGenerator: sizes and ratios of the levels, image, sizes of the maps
    "rpn_vgg16": (((128, 256, 512),), ((0.5, 1.0, 2.0),), (600, 800), [(37, 50)]),
    "rpn_fpn": (
        ((32,), (64,), (128,), (256,), (512,)),
        ((0.5, 1.0, 2.0),) * 5,
        (320, 384),
        [(80, 96), (40, 48), (20, 24), (10, 12), (5, 6)],
    ),
    "retinanet": (
        tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512)),
        ((0.5, 1.0, 2.0),) * 5,
        (213, 320),
        [(27, 40), (14, 20), (7, 10), (4, 5), (2, 3)],
    ),
    "fcos": (
        ((8,), (16,), (32,)),
        ((1.0,),) * 3,
        (96, 128),
        [(12, 16), (6, 8), (3, 4)],
    ),
}
DEFAULT: dict[str, tuple[dict[str, Any], tuple[int, int], list[tuple[int, int]]]] = {
    "ssd300": (
        {
            "ratios": [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
            "scales": [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
            "steps": [8, 16, 32, 64, 100, 300],
        },
        (300, 300),
        [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)],
    ),
    "ssd512": (
        {
            "ratios": [[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
            "scales": [0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05],
            "steps": [8, 16, 32, 64, 128, 256, 512],
        },
        (512, 512),
        [(64, 64), (32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (1, 1)],
    ),
    "ssdlite320": (
        {"ratios": [[2, 3]] * 6, "min_scale": 0.2, "max_scale": 0.95},
        (320, 320),
        [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)],
    ),
    "not_square": (
        {"ratios": [[2], [3]], "scales": [0.2, 0.7, 1.4], "steps": [7, 30], "clip": False},
        (120, 250),
        [(17, 35), (4, 8)],
    ),
    "one_map": ({"ratios": [[2]]}, (90, 100), [(9, 10)]),
}
YOLO = {
    "yolov3": (
        [
            [(116, 90), (156, 198), (373, 326)],
            [(30, 61), (62, 45), (59, 119)],
            [(10, 13), (16, 30), (33, 23)],
        ],
        [(13, 10), (26, 20), (52, 40)],
        [32, 16, 8],
    ),
}
EFFICIENTDET: dict[str, dict[str, Any]] = {
    "d0": {"image_size": (512, 512)},
    "not_square": {"image_size": (384, 640), "anchor_scale": 3.0},
    "ratios": {"image_size": (256, 256), "ratios": (0.5, 1.0, 2.0), "scales": 2, "levels": (3, 6)},
}


def some_boxes(seed: int, count: int, side: float = 100.0) -> np.ndarray:
    """Boxes f32 [count, 4] that overlap each other a good deal."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.6 * side, (count, 2))
    size = rng.uniform(0.02 * side, 0.4 * side, (count, 2))
    return np.concatenate([corner, corner + size], 1).astype(np.float32)


def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Two sets of 12 boxes: apart, one inside the other, equal, touching, of one pixel."""
    boxes, others = some_boxes(0, 12), some_boxes(1, 12)
    others[0] = boxes[0]
    others[1] = boxes[1] + [1, 1, -1, -1]
    others[2] = boxes[2] + np.float32(500)
    others[3] = [boxes[3, 2], boxes[3, 1], boxes[3, 2] + 7, boxes[3, 3]]
    boxes[4] = [3, 4, 4, 5]
    return boxes, others


def candidates() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(boxes, scores, classes) for suppression, by name: distinct scores and equal ones."""
    found = {}
    for name, count, steps in (("distinct", 120, None), ("ties", 90, 6), ("all_alike", 40, 1)):
        rng = np.random.default_rng(count)
        scores = rng.random(count).astype(np.float32)
        if steps:
            scores = (np.ceil(scores * steps) / steps).astype(np.float32)
        found[name] = (some_boxes(count, count), scores, rng.integers(0, 3, count).astype(np.int32))
    # Overlaps of exactly 3/10, 5/10 and 7/10, and boxes without area.
    exact = [[0, 0, 10, 1], [0, 0, 3, 1], [20, 0, 30, 1], [20, 0, 25, 1], [40, 0, 50, 1]]
    exact += [[40, 0, 47, 1], [60, 0, 60, 9], [60, 0, 60, 9], [5, 0, 5, 1]]
    falling = np.linspace(0.9, 0.1, len(exact), dtype=np.float32)
    found["exact"] = (np.float32(exact), falling, np.zeros(len(exact), np.int32))
    return found


def targets() -> tuple[np.ndarray, np.ndarray, list[int]]:
    """(boxes, anchors, anchors of each level): anchors of two levels over an image of 96 pixels."""
    boxes = some_boxes(3, 6, 96.0)
    levels = []
    for stride, sizes in ((8, (20, 30)), (16, (40, 60))):
        places = stride * np.arange(96 // stride) + stride / 2
        y, x = np.meshgrid(places, places, indexing="ij")
        middle = np.stack([x.ravel(), y.ravel()], 1)[:, None]
        # No two distances are equal, whose order would be anyone's.
        middle = middle + np.random.default_rng(stride).uniform(-0.5, 0.5, (len(middle), 2, 2))
        half = np.float64(sizes)[None, :, None] / 2
        levels.append(np.concatenate([middle - half, middle + half], -1).reshape(-1, 4))
    return boxes, np.concatenate(levels).astype(np.float32), [len(level) for level in levels]


def numbers() -> dict[str, np.ndarray]:
    """What losses are compared on: differences small and large, logits, which entries are there."""
    rng = np.random.default_rng(5)
    return {
        "predictions": rng.normal(0, 2, 40).astype(np.float32),
        "targets": rng.normal(0, 1, 40).astype(np.float32),
        "logits": np.append(rng.normal(0, 4, 38), [-60, 60]).astype(np.float32),
        "there": (rng.random(40) < 0.3).astype(np.float32),
        "losses": rng.random((3, 30)).astype(np.float32),
        "positive": np.stack([rng.random(30) < 0.15, np.zeros(30, bool), rng.random(30) < 0.2]),
    }


def digest(boxes: np.ndarray) -> np.ndarray:
    """SHA-256 of float32 values, in which 0 and -0 are one."""
    values = np.ascontiguousarray(boxes + np.float32(0), "<f4")
    return np.frombuffer(hashlib.sha256(values.tobytes()).digest(), np.uint8)


def _package_file(name: str, **stubs: Any) -> ModuleType:
    """A module of a package whose own imports are not there: stubs by dotted name take their place.

    The packages above it become empty, as running their `__init__` would import everything.
    """
    parts = name.split(".")
    if parts[0] not in sys.modules:
        location = importlib.util.find_spec(parts[0])
        if location is None:
            raise ModuleNotFoundError(f"No package {parts[0]}: pip install --no-deps it.")
        sys.modules[parts[0]] = ModuleType(parts[0])
        sys.modules[parts[0]].__path__ = list(location.submodule_search_locations or [])
    folder = Path(sys.modules[parts[0]].__path__[0])
    for depth in range(2, len(parts)):
        package = ModuleType(".".join(parts[:depth]))
        package.__path__ = [str(folder.joinpath(*parts[1:depth]))]
        sys.modules[package.__name__] = package
    for dotted, contents in stubs.items():
        stub = ModuleType(dotted)
        stub.__dict__.update(contents)
        sys.modules[dotted] = stub
    return importlib.import_module(name)


def _mmdet(name: str) -> ModuleType:
    from torchvision.ops import box_iou

    registry = SimpleNamespace(
        register_module=lambda: lambda cls: cls,
        build=lambda config: box_iou,  # the only thing that is built: a calculator of overlaps
    )
    stubs = {
        "mmengine": {},
        "mmengine.utils": {"is_tuple_of": None},
        "mmengine.structures": {"InstanceData": SimpleNamespace},
        "mmdet.registry": {"TASK_UTILS": registry, "MODELS": registry},
        "mmdet.structures": {},
        "mmdet.structures.bbox": {
            "BaseBoxes": None,
            "HorizontalBoxes": None,
            "get_box_tensor": lambda boxes: boxes,
        },
        "mmdet.utils": {
            "ConfigType": dict,
            "util_mixins": SimpleNamespace(NiceRepr=object),
        },
    }
    return _package_file(f"mmdet.models.{name}", **stubs)


def _anchors() -> dict[str, np.ndarray]:
    import torch
    from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList

    found: dict[str, Any] = {}
    for name, (sizes, ratios, image, maps) in CELL.items():
        images = ImageList(torch.zeros(1, 3, *image), [image])
        features = [torch.zeros(1, 1, *size) for size in maps]
        found[name] = AnchorGenerator(sizes, ratios)(images, features)[0]
    for name, (options, image, maps) in DEFAULT.items():
        renamed = {"ratios": "aspect_ratios", "min_scale": "min_ratio", "max_scale": "max_ratio"}
        generator = DefaultBoxGenerator(**{renamed.get(k, k): v for k, v in options.items()})
        images = ImageList(torch.zeros(1, 3, *image), [image])
        found[name] = generator(images, [torch.zeros(1, 1, *size) for size in maps])[0]
    generators = _mmdet("task_modules.prior_generators.anchor_generator")
    for name, (sizes, maps, strides) in YOLO.items():
        priors = generators.YOLOAnchorGenerator(strides, sizes).grid_priors(maps, device="cpu")
        found[name] = torch.cat(priors)
    anchors = _package_file("effdet.anchors").Anchors
    for name, options in EFFICIENTDET.items():
        first, last = options.get("levels", (3, 7))
        ratios = options.get("ratios", ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)))
        scale = options.get("anchor_scale", 4.0)
        size = options["image_size"]
        made = anchors(first, last, options.get("scales", 3), ratios, scale, size)
        found[f"efficientdet_{name}"] = made.boxes[:, [1, 0, 3, 2]]
    arrays = {name: value.numpy() for name, value in found.items()}
    return {
        f"anchors/{name}/{part}": value
        for name, array in arrays.items()
        for part, value in {
            "shape": np.array(array.shape),
            "some": array[:: max(1, len(array) // 7)],
            "digest": digest(array),
        }.items()
    }


def _codings() -> dict[str, np.ndarray]:
    import torch
    from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder

    boxes, anchors = (torch.from_numpy(array) for array in pairs())
    raw = torch.from_numpy(np.random.default_rng(2).normal(0, 3, (12, 4)).astype(np.float32))
    found = {"raw": raw}
    for name, weights in WEIGHTS.items():
        coder = BoxCoder(weights)
        found[f"encode_{name}"] = coder.encode_single(boxes, anchors)
        found[f"decode_{name}"] = coder.decode_single(raw, anchors)
    square = anchors.clone()
    square[:, 2:] = square[:, :2] + 16
    linear = BoxLinearCoder()
    found["encode_distances"] = linear.encode(square, boxes)
    found["decode_distances"] = linear.decode(raw, square)
    coder = _mmdet("task_modules.coders.yolo_bbox_coder").YOLOBBoxCoder()
    priors = _yolo_priors(anchors.numpy())
    found["encode_yolo"] = coder.encode(torch.from_numpy(priors), boxes, 16)
    squashed = torch.cat([raw[:, :2].sigmoid(), raw[:, 2:]], 1)
    found["decode_yolo"] = coder.decode(torch.from_numpy(priors), squashed, 16)
    return {f"codings/{name}": value.numpy() for name, value in found.items()}


def cells() -> tuple[np.ndarray, np.ndarray]:
    """(column, row) of a cell of 16 pixels and (width, height) of a prior, for each of `pairs`."""
    boxes, anchors = pairs()
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.floor(middle / 16).astype(np.float32), anchors[:, 2:] - anchors[:, :2]


def _yolo_priors(anchors: np.ndarray) -> np.ndarray:
    cell, size = cells()
    middle = (cell + np.float32(0.5)) * 16
    return np.concatenate([middle - size / 2, middle + size / 2], 1)


def _with_gradient(loss: Callable[..., Any], first: np.ndarray, *others: Any) -> Any:
    import torch

    first = torch.from_numpy(first).requires_grad_()
    value = loss(first, *(torch.from_numpy(other) for other in others))
    value.sum().backward()
    return value.detach(), first.grad


def _losses() -> dict[str, np.ndarray]:
    from torch.nn.functional import smooth_l1_loss
    from torchvision import ops

    balanced = _mmdet("losses.balanced_l1_loss").balanced_l1_loss
    given, (boxes, others) = numbers(), pairs()
    differences = given["predictions"], given["targets"]
    found = {}
    for beta in (1 / 9, 1.0):
        found[f"smooth_l1/{beta:.2f}"] = _with_gradient(
            lambda a, b, beta=beta: smooth_l1_loss(a, b, beta=beta, reduction="none"), *differences
        )
    found["balanced_l1"] = _with_gradient(
        lambda a, b: balanced(a, b, reduction="none"), *differences
    )
    for name, options in {"focal": {}, "focal_unweighted": {"alpha": -1, "gamma": 1.5}}.items():
        found[name] = _with_gradient(
            lambda a, b, options=options: ops.sigmoid_focal_loss(a, b, **options),
            given["logits"],
            given["there"],
        )
    found["giou"] = _with_gradient(ops.generalized_box_iou_loss, boxes, others)
    found["diou"] = _with_gradient(ops.distance_box_iou_loss, boxes, others)
    return {
        f"losses/{name}/{part}": value.numpy()
        for name, both in found.items()
        for part, value in zip(("value", "gradient"), both, strict=True)
    }


def _suppressed() -> dict[str, np.ndarray]:
    import torch
    from torchvision.ops import nms
    from torchvision.ops.boxes import _batched_nms_vanilla

    found = {}
    for name, arrays in candidates().items():
        boxes, scores, classes = (torch.from_numpy(array) for array in arrays)
        for threshold in THRESHOLDS:
            found[f"nms/{name}/{threshold}"] = nms(boxes, scores, threshold)
        if name in ("distinct", "exact"):  # of equal scores its order is anyone's
            found[f"batched_nms/{name}"] = _batched_nms_vanilla(boxes, scores, classes, 0.5)
    soft_nms = _package_file("effdet.soft_nms")
    boxes, scores, classes = (torch.from_numpy(array) for array in candidates()["distinct"])
    # Classes are kept apart by their coordinates there.
    for method in ("gaussian", "linear"):
        options = {"method_gaussian": method == "gaussian", "iou_threshold": 0.3}
        plain = soft_nms.soft_nms(boxes, scores, score_threshold=0.05, **options)
        by_class = soft_nms.batched_soft_nms(
            boxes, scores, classes, score_threshold=0.05, **options
        )
        for key, (indices, values) in {"soft_nms": plain, "batched_soft_nms": by_class}.items():
            found[f"{key}/{method}/indices"] = indices
            found[f"{key}/{method}/scores"] = values
    return {name: value.numpy() for name, value in found.items()}


def _matched() -> dict[str, np.ndarray]:
    import torch
    from torchvision.models.detection._utils import Matcher, SSDMatcher
    from torchvision.ops import box_iou

    boxes, anchors, levels = targets()
    boxes, anchors = torch.from_numpy(boxes), torch.from_numpy(anchors)
    overlaps = box_iou(boxes, anchors)
    matcher = _package_file("effdet.object_detection").ArgMaxMatcher(
        0.5, 0.5, negatives_lower_than_unmatched=True, force_match_for_each_row=True
    )
    shared = box_iou(torch.cat([boxes, boxes[:1] + 0.5]), anchors)
    assigner = _mmdet("task_modules.assigners.atss_assigner").ATSSAssigner(9)
    assigned = assigner.assign(
        SimpleNamespaceWithIn(priors=anchors),
        levels,
        SimpleNamespace(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long)),
    )
    found = {
        "overlaps": overlaps,
        "low_quality": Matcher(0.7, 0.3, allow_low_quality_matches=True)(overlaps),
        "strict": Matcher(0.5, 0.4)(overlaps),
        "ssd": SSDMatcher(0.5)(shared),
        "efficientdet": matcher.match(shared).match_results,
        "atss": assigned.gt_inds - 1,
    }
    return {f"matching/{name}": value.numpy() for name, value in found.items()}


class SimpleNamespaceWithIn(SimpleNamespace):
    """What mmdet asks `"scores" in` of."""

    def __contains__(self, name: str) -> bool:
        return hasattr(self, name)


def detection_ops() -> None:
    """Writes detection_ops.npz."""
    found = {
        **_anchors(),
        **_codings(),
        **_losses(),
        **_suppressed(),
        **_matched(),
    }
    import torch
    from torchvision.ops import box_iou, distance_box_iou, generalized_box_iou

    boxes, others = (torch.from_numpy(array) for array in pairs())
    for function in (box_iou, distance_box_iou, generalized_box_iou):
        found[f"overlaps/{function.__name__}"] = function(boxes, others).numpy()
    np.savez_compressed(PATH, **found)
    print(f"{PATH.name}: {len(found)} arrays, {PATH.stat().st_size} bytes")


if __name__ == "__main__":
    detection_ops()
