"""Detectors beside their PyTorch references: one file a family here.

Each holds, without importing torch:
  PARAMETERS: exact count of every variant of the family, with CLASSES classes.
  LARGE, optional: those of them that take long to trace, and are not counted by default.
  CASES: small networks that run every line, by name; `Case` says how ours is made.
and, importing torch where used:
  build(name, case): the reference as a `torch.nn.Module`, with everything sampled in training.
  heads(network, images): its raw outputs by ours' names, as `heads` of our module gives them.
  detections(network, images): for each image `boxes`, `scores` and `labels` (0 is a class).
  losses(network, images, targets): by our names; a target has `boxes` and `labels` (0 is a class).
Images are [b, c, h, w] as the network sees them, so the reference neither resizes nor normalises.
torchvision.py has the last three for detectors of torchvision.

    python tests/parity/generate_detectors.py [CASE ...]

writes golden/CASE.npz of what tests/models/test_detectors.py compares with: raw outputs, losses and
gradients on generated images, detections there and in two photographs.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from parity.deterministic import _uniform, weights
from parity.deterministic import photographs as _photographs

GOLDEN = Path(__file__).parents[1] / "golden"
# How many elements are kept of an output, a parameter's gradient, a statistic.
OUTPUTS, GRADIENTS, STATISTICS = 240, 6, 6


@dataclass(frozen=True)
class Case:
    """One detector on one batch.

    Attributes:
      variant: of the registry.
      image: its shape in PyTorch's layout, [b, c, h, w].
      classes: of objects.
      options: for `models.create`; in training all anchors and proposals are learnt from.
      boxes: how many objects each image has.
      proposals: how many of `inputs` each image has, of a network that is given some.
      double: whether ours computes in float64: rounding decides which boxes survive, or slopes.
      detections: how many are compared of each image.
      masks: whether objects have masks.
      keypoints: how many each object has.
      stuff: how many classes of stuff there are beside those of objects, which have masks.
      saturated: whether so many scores are exactly 1 that the order of detections is open; what is
        found is then compared in another case of the family.
      background: whether something is learnt of a batch without objects.
      slow: what need not run by default, because another case runs the same code: "all", or the
        "training" step alone.
      contrast: by what photographs are multiplied, so that objects are found in each.
      smaller: by how names of weights begin, factors that keep outputs small of which boxes are
        exponentials.
    """

    variant: str
    image: tuple[int, ...]
    classes: int = 3
    options: Mapping[str, Any] = field(default_factory=dict)
    boxes: tuple[int, ...] = (3, 2)
    proposals: tuple[int, ...] = ()
    double: bool = True
    detections: int = 20
    background: bool = True
    slow: Literal["", "training", "all"] = ""
    masks: bool = False
    keypoints: int = 0
    stuff: int = 0
    saturated: bool = False
    contrast: float = 1.0
    smaller: Mapping[str, float] = field(default_factory=dict)

    def weights(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """What the reference's parameter or statistic of this name is."""
        factors = (factor for begin, factor in self.smaller.items() if name.startswith(begin))
        return weights(name, shape) * np.float32(next(factors, 1.0))


def families() -> dict[str, ModuleType]:
    """The modules that hold cases, by name."""
    modules = [
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    ]
    return {m.__name__.split(".")[-1]: m for m in modules if hasattr(m, "CASES")}


def _drawn(name: str, case: Case, count: int) -> np.ndarray:
    """Boxes of each image, f32 [b, count, 4]."""
    batch, _, height, width = case.image
    drawn = _uniform(f"{name} of {batch}x{height}x{width}", (batch, count, 4)) / 2 + 0.5
    sides = np.float32([width, height])
    extent = (0.2 + 0.5 * drawn[..., 2:]) * sides
    corner = drawn[..., :2] * (sides - extent)
    return np.concatenate([corner, corner + extent], -1)


def targets(case: Case) -> dict[str, np.ndarray]:
    """Objects of each image: `boxes` f32 [b, n, 4], `box_label`, ..., padded.

    Masks are ellipses in the boxes; key points are in them or near, some of them hidden. Stuff lies
    around the masks in stripes, the last of which is void.
    """
    batch, count = case.image[0], max(case.boxes)
    valid = np.arange(count) < np.array(case.boxes)[:, None]
    label = (_uniform(f"classes of {batch}", (batch, count)) + 1) / 2 * case.classes
    boxes = _drawn("boxes", case, count)
    more = {}
    if case.masks:
        y, x = np.mgrid[: case.image[2], : case.image[3]] + 0.5
        x0, y0, x1, y1 = np.moveaxis(boxes[..., None, None], 2, 0)
        inside = ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2 < 1
        inside &= valid[..., None, None]
        more["instance_masks"] = np.packbits(inside, axis=-1)
    if case.stuff:
        stripe = (x / case.image[3] * (case.stuff + 1)).astype(np.uint8)
        around = np.where(stripe < case.stuff, stripe, np.uint8(255))
        more["segmentation"] = np.where(inside.any(1), np.uint8(case.stuff), around)
    if case.keypoints:
        drawn = _uniform(f"key points of {batch}", (batch, count, case.keypoints, 3))
        sides = (boxes[..., 2:] - boxes[..., :2])[:, :, None]
        place = boxes[:, :, None, :2] + (0.55 * drawn[..., :2] + 0.5) * sides
        visible = np.where(drawn[..., 2:] > -0.5, 1, 0)
        more["keypoints"] = np.concatenate([place, visible], -1).astype(np.float32)
    return {
        **more,
        "boxes": np.where(valid[..., None], boxes, 0),
        "box_label": np.where(valid, label, 0).astype(np.int32),
        "box_valid": valid,
        "box_crowd": np.zeros_like(valid),
        "valid": np.ones(batch, bool),
    }


def photographs(case: Case) -> np.ndarray:
    """Two photographs in the case's shape, [b, c, h, w] as in PyTorch."""
    return np.float32(case.contrast) * _photographs(case.image)


def inputs(case: Case) -> dict[str, np.ndarray]:
    """What a network is given beside images: `proposals` f32 [b, n, 4], `proposal_valid`, padded.

    Some lie on objects, or nearly.
    """
    if not case.proposals:
        return {}
    batch, _, height, width = case.image
    count = max(case.proposals)
    boxes = _drawn("proposals", case, count)
    objects = _drawn("boxes", case, max(case.boxes))
    near = objects[:, np.arange(count // 2) % objects.shape[1]]
    shift = (
        0.1 * _uniform(f"shifts of {batch}", near.shape) * (near[..., 2:] - near[..., :2]).mean()
    )
    boxes[:, ::2][:, : near.shape[1]] = np.clip(near + shift, 0, [width, height] * 2)
    valid = np.arange(count) < np.array(case.proposals)[:, None]
    return {"proposals": np.where(valid[..., None], boxes, 0), "proposal_valid": valid}
