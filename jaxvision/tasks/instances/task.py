"""Instances: detection, with a mask or the key points of each object."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import numpy as np
from jaxtyping import Float

from jaxvision import models
from jaxvision.data.geometry import Geometry
from jaxvision.errors import UserError
from jaxvision.metrics.detection import Found, Truth, coco_scores, overlaps
from jaxvision.metrics.instances import (
    KEYPOINT_METRICS,
    MASK_METRICS,
    FoundPoints,
    TruePoints,
    keypoint_scores,
)
from jaxvision.ops.roi import mask_overlaps
from jaxvision.tasks.base import Batch, Metric, Sums, Variables
from jaxvision.tasks.detection.task import Detection

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# What a network may find of each object beside a box: the key of a batch that it is learnt from.
_KEYS = {"masks": "instance_masks", "keypoints": "keypoints"}


@dataclass(frozen=True)
class Instances(Detection):
    """As `Detection`, with networks that find more of an object than its box.

    Their class says what: with `PARTS = ("masks",)` they give `masks` [b, n, m, m] too, how likely
    each cell of a box is its object's, and learn from `instance_masks` and `mask_valid`; with
    `PARTS = ("keypoints",)` they give `keypoints` [b, n, k, 3], x and y in pixels of their image
    and how sure, and learn from `keypoints`.

    Attributes, beside those of `Detection`:
      sigmas: see `metrics.instances.keypoint_scores`; () is None there.
      keypoint_pairs: left and right ones.
      skeleton: pairs of key points between which a limb is drawn.
    """

    annotations: ClassVar[tuple[str, ...]] = ("instances",)
    unused: ClassVar[tuple[str, ...]] = ()
    metrics: ClassVar[dict[str, Metric]] = {
        **Detection.metrics,
        **{name: Metric("higher") for name in (*MASK_METRICS, *KEYPOINT_METRICS)},
        "mask_ap/*": Metric("higher"),
        "keypoint_ap/*": Metric("higher"),
    }

    sigmas: tuple[float, ...] = ()
    keypoint_pairs: tuple[tuple[int, int], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()

    @classmethod
    def unused_by(cls, config: "ConfigDict") -> tuple[str, ...]:
        parts = _parts(models.variant(config.model.name).module)
        return tuple(key for part, key in _KEYS.items() if part not in parts)

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        task = super().create(config, facts)
        if not task.finds:
            raise UserError(f"{config.model.name} finds boxes alone; its task is 'detection'.")
        return task

    @classmethod
    def options(cls, own: "ConfigDict", facts: Any) -> dict[str, Any]:
        return {
            **super().options(own, facts),
            "sigmas": tuple(own.sigmas),
            "keypoint_pairs": facts.keypoint_pairs,
            "skeleton": facts.skeleton,
        }

    @property
    def finds(self) -> tuple[str, ...]:
        """What is found of each object beside a box."""
        return _parts(type(self.model))

    def targets(self, batch: Batch) -> dict[str, jax.Array]:
        more = ("instance_masks", "mask_valid", "keypoints")
        return {**super().targets(batch), **{name: batch[name] for name in more if name in batch}}

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        self.check(batch)
        return {}, self.rows(batch, self.predict(variables, batch, key))

    def rows(self, batch: Batch, found: Mapping[str, jax.Array]) -> dict[str, Any]:
        """`object_rows`, and what `score` takes of masks and key points."""
        rows = self.object_rows(batch, found)
        if "masks" in self.finds:
            width = batch["image"].shape[2]
            measured = jax.vmap(partial(mask_overlaps, width=width))(
                found["masks"], found["boxes"], batch["instance_masks"]
            )
            rows |= {f"mask_{name}": value for name, value in measured._asdict().items()}
            if "mask_valid" in batch:
                rows["mask_valid"] = batch["mask_valid"]
        if "keypoints" in self.finds:
            rows |= {"found_keypoints": found["keypoints"], "true_keypoints": batch["keypoints"]}
        return rows

    def check(self, batch: Batch) -> None:
        """Raises:
        UserError: the batch lacks masks or key points.
        """
        for part, key in _KEYS.items():
            if part in self.finds and key not in batch:
                name = part.replace("keypoints", "key points")
                raise UserError(
                    f"{type(self.model).__name__} finds {name}, but the data have none of objects."
                )

    def score_objects(
        self, found: Found, truth: Truth, rows: Mapping[str, Any]
    ) -> dict[str, float]:
        """COCO's numbers of boxes, of masks and of key points."""
        scores = super().score_objects(found, truth, rows)
        if "masks" in self.finds:
            own = _mask_scores(rows, found, truth, self.class_names)
            scores |= {f"mask_{name}": value for name, value in own.items()}
        if "keypoints" in self.finds:
            seen, there = (_on_photographs(rows, side) for side in ("found", "true"))
            scores |= keypoint_scores(
                FoundPoints(found.image, seen[..., :2], found.label, found.score),
                TruePoints(truth.image, truth.boxes, there, truth.label, truth.crowd, truth.area),
                range(len(rows["geometry"])),
                self.class_names,
                self.sigmas or None,
            )
        return scores

    def scores(self) -> tuple[str, ...]:
        more = {"masks": MASK_METRICS, "keypoints": KEYPOINT_METRICS}
        found = (name for part in self.finds for name in more.get(part, ()))
        return *super().scores(), *found


def _parts(module: Any) -> tuple[str, ...]:
    return getattr(module, "PARTS", ())


def _on_photographs(rows: Mapping[str, np.ndarray], side: str) -> Float[np.ndarray, "n k 3"]:
    """The key points of all images, one after another, in pixels of the photographs."""
    kept = rows["found_valid" if side == "found" else "true_box_valid"]
    ways = zip(rows["geometry"], rows["image_size"], rows[f"{side}_keypoints"], kept, strict=True)
    moved = [
        points_on_photograph(Geometry.from_array(matrix, size, size), points[mask])
        for matrix, size, points, mask in ways
    ]
    return np.concatenate(moved)


def points_on_photograph(
    way: Geometry, points: Float[np.ndarray, "n k 3"]
) -> Float[np.ndarray, "n k 3"]:
    """Key points of a network's image on the photograph, which it was made of along `way`."""
    places = way.inverse_points(points[..., :2].astype(np.float32))
    return np.concatenate([places, points[..., 2:]], -1)


def _mask_scores(
    rows: Mapping[str, np.ndarray], found: Found, truth: Truth, class_names: tuple[str, ...]
) -> dict[str, float]:
    """Masks are compared in pixels of the network's image, their sizes are the photograph's.

    An object without a mask is compared by its box, and need not be found.
    """
    shared, scale = [], []
    masked = rows.get("mask_valid", np.ones_like(rows["true_box_valid"]))
    for image, matrix in enumerate(rows["geometry"]):
        seen, there = rows["found_valid"][image], rows["true_box_valid"][image]
        pixels = rows["mask_shared"][image][seen][:, there].astype(np.float64)
        areas = rows["mask_found"][image][seen][:, None].astype(np.float64)
        union = areas + rows["mask_true"][image][there] - pixels
        union = np.where(rows["true_box_crowd"][image][there], areas, union)
        share = pixels / np.where(union > 0, union, 1)
        by_box = overlaps(rows["found_boxes"][image][seen], rows["true_boxes"][image][there])
        shared.append(np.where(masked[image][there], share, by_box))
        scale.append(abs(np.linalg.det(matrix[:2, :2].astype(np.float64))))
    known = masked[rows["true_box_valid"]]
    areas = (rows["mask_found"] / np.array(scale)[:, None])[rows["found_valid"]]
    return coco_scores(
        found,
        truth._replace(crowd=truth.crowd | ~known),
        range(len(scale)),
        class_names,
        shared,
        areas,
    )
