"""Boxes that may hold an object, whatever it is: found by an algorithm before the network looks.

A record has `proposals` f32 [n, 4] (x0, y0, x1, y1 in pixels), the best first; a batch has
`proposals` f32 [b, p, 4] and `proposal_valid` bool [b, p]. p is `Settings.max_proposals`: of more
the first stay, and rows after a record's last one are zeros and not valid. The host transform
`selective_search` finds them.

Boxes are clipped to the image. One of which no area is left is taken away, on the device marked as
not valid. Images that are joined give theirs by turns, so that the best ones stay.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxvision.data.annotations.kind import Kind, Record, Settings
from jaxvision.data.geometry import Geometry
from jaxvision.data.motion import Joint, Motion
from jaxvision.errors import UserError
from jaxvision.ops import geometry as affine


class Proposals(Kind):
    """Boxes without classes, by rank."""

    record_keys = ("proposals",)
    batch_keys = ("proposals", "proposal_valid")
    placed = joins = True

    def decode(self, record: Record, name: str, settings: Settings) -> dict[str, Any]:
        boxes = np.asarray(record["proposals"], np.float32)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise UserError(
                f"{name}: proposals has the shape {list(boxes.shape)}; expected [proposals, 4]."
            )
        if not (np.isfinite(boxes).all() and (boxes[:, 2:] >= boxes[:, :2]).all()):
            raise UserError(f"{name} has proposals that are no (x0, y0, x1, y1).")
        return {"proposals": boxes}

    def check(self, found: dict[str, Any], size: tuple[int, ...], name: str) -> dict[str, Any]:
        if len(size) != 2:
            raise UserError(f"{name} is a volume, which can have no proposals.")
        limits = np.array([size[1], size[0], size[1], size[0]], np.float32)
        return _with_area(np.clip(found["proposals"], 0, limits))

    def move(self, record: Record, geometry: Geometry) -> dict[str, Any]:
        return _with_area(geometry.boxes(record["proposals"]))

    def pad(self, record: Record, name: str, settings: Settings) -> dict[str, np.ndarray]:
        limit = settings.max_proposals
        best = record["proposals"][:limit]
        row = np.zeros((limit, 4), np.float32)
        row[: len(best)] = best
        return {"proposals": row, "proposal_valid": np.arange(limit) < len(best)}

    def move_on_device(self, batch: Mapping[str, Array], motion: Motion) -> dict[str, Array]:
        boxes = affine.clip_boxes(motion.boxes(batch["proposals"]), *batch["image"].shape[1:3])
        left = (boxes[..., 2:] > boxes[..., :2]).all(-1)
        return {"proposals": boxes, "proposal_valid": batch["proposal_valid"] & left}

    def join_on_device(self, batch: Mapping[str, Array], joint: Joint) -> dict[str, Array]:
        boxes, share = joint.boxes(joint.parts(batch["proposals"]))
        valid = joint.parts(batch["proposal_valid"]) & (share > 0)
        rows, _, limit = valid.shape
        boxes = boxes.swapaxes(1, 2).reshape(rows, -1, 4)  # the first of each part, the second, ...
        valid = valid.swapaxes(1, 2).reshape(rows, -1)
        kept = jnp.argsort(~valid, axis=1, stable=True)[:, :limit]
        return {
            "proposals": jnp.take_along_axis(boxes, kept[..., None], 1),
            "proposal_valid": jnp.take_along_axis(valid, kept, 1),
        }


def _with_area(boxes: np.ndarray) -> dict[str, Any]:
    return {"proposals": boxes[(boxes[:, 2:] > boxes[:, :2]).all(-1)]}
