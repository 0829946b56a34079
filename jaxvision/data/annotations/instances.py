"""Objects: boxes, classes, crowd flags, masks and key points, which are filtered together.

A batch has `boxes` f32 [b, n, 4] (x0, y0, x1, y1 in pixels), `box_label` i32 [b, n], `box_valid`
and `box_crowd` bool [b, n] and, where the data have them, `box_area` f32 [b, n] (what the
annotation calls the object's area, in pixels of the network's input), `instance_masks` uint8
[b, n, h, ceil(w / 8)] (the bits of each row, `jaxvision.ops.bits`) with `mask_valid` bool [b, n]
(which objects have a mask at all), and `keypoints` f32 [b, n, k, 3] (x, y, visible). n is
`Settings.max_instances`; rows after a record's last object are zeros and not valid.

A source may give `relative_boxes`, in parts of the image's sides, instead of `boxes`, and
`annotated_size`, the (height, width) of the image on which the boxes were drawn. It gives masks as
a map `instances` [h, w] in which 0 is background and k the k-th object; where objects overlap, as
`instance_masks` bool [n, h, w], or `jaxvision.data.masks.Crops`, perhaps with `mask_valid` [n]; or
as `segmentations`, what a COCO file says of each (`jaxvision.data.masks.segmentation_of`).

On the host masks are such a map, or else crops.

**The rule.** Boxes are clipped to the image. An object of whose box no area is left, or of whose
mask no pixel, is taken away with all that belongs to it (on the device: marked as not valid).
A key point outside of the image is not visible. `box_area` changes with the image's scale, and not
with what a crop cuts off. Of more objects than fit a batch the largest boxes stay, crowds last.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxvision.data.annotations.kind import Kind, Record, Settings
from jaxvision.data.annotations.segmentation import check_turned, fitted, turned_alike
from jaxvision.data.codecs import decode_mask
from jaxvision.data.geometry import Geometry
from jaxvision.data.masks import Crops, segmentation_of
from jaxvision.data.motion import Joint, Motion
from jaxvision.data.segment_maps import SegmentMap
from jaxvision.errors import UserError
from jaxvision.ops import bits
from jaxvision.ops import boxes as box_ops
from jaxvision.ops import geometry as affine

# Arrays of one row an object, and what else has one entry an object.
_ROWS = (
    "boxes", "relative_boxes", "box_label", "box_crowd", "box_area", "mask_valid", "keypoints"
)  # fmt: skip
_PARTS = ("instance_masks", "segmentations", *_ROWS)


class Instances(Kind):
    """The objects of an image."""

    record_keys = (
        "boxes", "relative_boxes", "annotated_size", "box_label", "box_crowd", "box_area",
        "instances", "instance_masks", "segmentations", "mask_valid", "keypoints",
    )  # fmt: skip
    batch_keys = (
        "boxes", "box_label", "box_valid", "box_crowd", "box_area", "instance_masks", "mask_valid",
        "keypoints",
    )  # fmt: skip
    forms = dict.fromkeys(("instances", "segmentations", "mask_valid"), "instance_masks")
    placed = joins = True

    def present(self, record: Record) -> bool:
        return "boxes" in record or "relative_boxes" in record

    def decode(self, record: Record, name: str, settings: Settings) -> dict[str, Any]:
        key = "boxes" if "boxes" in record else "relative_boxes"
        found: dict[str, Any] = {key: _array(record, key, np.float32, (4,), name)}
        boxes = found[key]
        if not (np.isfinite(boxes).all() and (boxes[:, 2:] >= boxes[:, :2]).all()):
            raise UserError(f"{name} has boxes that are no (x0, y0, x1, y1): {boxes.tolist()}.")
        if "box_label" not in record:
            raise UserError(f"{name} has boxes, but no 'box_label', the class of each.")
        found["box_label"] = _array(record, "box_label", np.int32, (), name)
        _check_labels(found["box_label"], name, settings.num_classes)
        if "box_crowd" in record:
            found["box_crowd"] = _array(record, "box_crowd", np.bool_, (), name)
        else:
            found["box_crowd"] = np.zeros(len(boxes), bool)
        if "box_area" in record:
            found["box_area"] = _array(record, "box_area", np.float32, (), name)
        if "keypoints" in record:
            found["keypoints"] = _array(record, "keypoints", np.float32, (None, 3), name)
        found |= _masks(record, len(boxes), name, settings.max_image_pixels)
        for key in _PARTS:
            if key in found and len(found[key]) != len(boxes):
                raise UserError(f"{name} has {len(boxes)} boxes, but {key} of {len(found[key])}.")
        if "annotated_size" in record:
            found["annotated_size"] = tuple(map(int, record["annotated_size"]))
        return found

    def survey(self, records: Iterable[tuple[Record, str]], settings: Settings) -> None:
        seen = 0
        for record, _ in records:
            if not self.present(record) or len(record.get("boxes", record.get("relative_boxes"))):
                return
            seen += 1
        if seen:
            raise UserError(f"None of the {seen} images to train on has an object.")

    def check_turned(
        self, record: Record, found: Mapping[str, Any], turn: int, size: tuple[int, ...], name: str
    ) -> None:
        if "instances" in found:
            check_turned(record["instances"], found["instances"].shape, turn, size, name)
        if "annotated_size" in found:
            remedy = "Turn the boxes, or take the tag away (exiftool -Orientation= PHOTO)."
            turned_alike("boxes", found["annotated_size"], turn, size, name, remedy)

    def check(self, found: dict[str, Any], size: tuple[int, ...], name: str) -> dict[str, Any]:
        if len(size) != 2:
            raise UserError(f"{name} is a volume, which can have no boxes.")
        drawn_on = found.pop("annotated_size", size)
        if drawn_on != size:
            raise UserError(
                f"{name}: the image is {size[1]}x{size[0]} pixels, its boxes are of "
                f"{drawn_on[1]}x{drawn_on[0]}. If only the size is wrong there, and not the boxes: "
                "data.options.check_sizes=False."
            )
        if "instances" in found:
            found["instances"] = fitted(found["instances"], size, name)
        if "segmentations" in found:
            masks = Crops.of_segmentations(found.pop("segmentations"), size, name)
            found["instance_masks"] = masks
        if "instance_masks" in found:
            found["instance_masks"] = _fitted_masks(found["instance_masks"], size, name)
        limits = np.array([size[1], size[0], size[1], size[0]], np.float32)
        if "relative_boxes" in found:
            found["boxes"] = found.pop("relative_boxes") * limits
        found["boxes"] = np.clip(found["boxes"], 0, limits)
        if "keypoints" in found:
            found["keypoints"] = _shown(found["keypoints"], size)
        return _filtered(found)

    def move(self, record: Record, geometry: Geometry) -> dict[str, Any]:
        moved = {key: record[key] for key in self.record_keys if key in record}
        moved["boxes"] = geometry.boxes(record["boxes"])
        if "box_area" in moved:
            moved["box_area"] = moved["box_area"] * np.float32(abs(geometry.determinant))
        if "keypoints" in moved:
            if geometry.mirrors:
                raise UserError(
                    "A host transform mirrors images with key points, whose left and right it does "
                    "not know; flip on the device, with data.augment."
                )
            points = geometry.points(moved["keypoints"][..., :2])
            points = np.concatenate([points, moved["keypoints"][..., 2:]], axis=-1)
            moved["keypoints"] = _shown(points, geometry.size)
        if "instances" in moved:
            moved["instances"] = geometry.labels(moved["instances"], 0)
        if "instance_masks" in moved:
            moved["instance_masks"] = moved["instance_masks"].move(geometry)
        return _filtered(moved)

    def select(self, record: Record, kept: Bool[np.ndarray, " n"]) -> dict[str, Any]:
        return _selected({k: record[k] for k in self.record_keys if k in record}, kept)

    def left_out(self, record: Record, settings: Settings) -> int:
        return max(0, len(record["boxes"]) - settings.max_instances)

    def pad(self, record: Record, name: str, settings: Settings) -> dict[str, np.ndarray]:
        limit = settings.max_instances
        if self.left_out(record, settings):
            record = {**record, **self.select(record, _largest(record, limit))}
        count = len(record["boxes"])
        row = {}
        for key in _ROWS:
            if key in record:
                row[key] = np.zeros((limit, *record[key].shape[1:]), record[key].dtype)
                row[key][:count] = record[key]
        if "instances" in record:
            masks = [np.packbits(record["instances"] == k + 1, axis=1) for k in range(count)]
            row["instance_masks"] = _padded(masks, record["instances"].shape, limit)
        if "instance_masks" in record:
            crops = record["instance_masks"]
            row["instance_masks"] = _padded(crops.bits(), crops.size, limit)
        row["box_valid"] = np.arange(limit) < count
        return row

    def classes(self, record: Record) -> np.ndarray:
        return record["box_label"]

    def move_on_device(self, batch: Mapping[str, Array], motion: Motion) -> dict[str, Array]:
        height, width = batch["image"].shape[1:3]
        moved, left = {}, jnp.array(True)
        if "boxes" in batch:
            moved["boxes"] = affine.clip_boxes(motion.boxes(batch["boxes"]), height, width)
            left = (moved["boxes"][..., 2:] > moved["boxes"][..., :2]).all(-1)
        if "box_area" in batch:
            moved["box_area"] = batch["box_area"] * motion.area_scale[:, None]
        if "instance_masks" in batch:
            # Nearest neighbours move a pixel with all its bits: those of eight objects.
            planes = bits.planes(batch["instance_masks"], width)
            planes = jax.vmap(lambda plane: motion.labels(plane, 0), 1, 1)(planes)
            masks = bits.from_planes(planes, batch["instance_masks"].shape[1])
            moved["instance_masks"] = masks
            left &= masks.any((-2, -1)) | ~batch["mask_valid"]
        if "box_valid" in batch:
            moved["box_valid"] = batch["box_valid"] & left
        if "keypoints" in batch:
            moved["keypoints"] = _moved_keypoints(batch["keypoints"], motion, height, width)
        return moved

    def join_on_device(self, batch: Mapping[str, Array], joint: Joint) -> dict[str, Array]:
        for key in ("instance_masks", "keypoints"):
            if key in batch:
                raise UserError(f"What joins images does not carry along {key}, but boxes alone.")
        limit = batch["boxes"].shape[1]
        rows = {key: joint.parts(batch[key]) for key in self.batch_keys if key in batch}
        rows["boxes"], share = joint.boxes(rows["boxes"])
        least = jnp.where(rows["box_crowd"], 0.0, joint.least_area)
        rows["box_valid"] &= (share > 0) & (share >= least)
        if "box_area" in rows:
            rows["box_area"] = rows["box_area"] * joint.area_scale[:, :, None]
        united = {k: v.reshape(v.shape[0], -1, *v.shape[3:]) for k, v in rows.items()}
        # As `pad` chooses: the largest, crowds behind all others; here in the order of the parts.
        size = -box_ops.area(united["boxes"])
        order = jnp.lexsort((size, united["box_crowd"], ~united["box_valid"]))
        kept = jnp.sort(order[:, :limit], axis=1)
        return {
            key: jnp.take_along_axis(v, kept.reshape(*kept.shape, *(1,) * (v.ndim - 2)), axis=1)
            for key, v in united.items()
        }


# -- on the host ------------------------------------------------------------------------------


def _array(
    record: Record, key: str, dtype: Any, shape: tuple[int | None, ...], name: str
) -> np.ndarray:
    """One row an object, of the given shape (None: any length).

    Raises:
      UserError: the shape is another.
    """
    array = np.asarray(record[key])
    fits = array.ndim == len(shape) + 1 and all(
        want in (None, have) for have, want in zip(array.shape[1:], shape)
    )
    if not fits:
        expected = ", ".join(["objects", *("any" if n is None else str(n) for n in shape)])
        raise UserError(f"{name}: {key} has the shape {list(array.shape)}; expected [{expected}].")
    return array.astype(dtype)


def _check_labels(labels: np.ndarray, name: str, num_classes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= num_classes)] if num_classes else labels[labels < 0]
    if len(wrong):
        raise UserError(
            f"{name} has an object of class {wrong[0]}, but there are {num_classes} classes "
            f"(0 to {num_classes - 1})."
        )


def _masks(record: Record, count: int, name: str, max_pixels: int) -> dict[str, Any]:
    """The masks of a source's record, of which polygons and run lengths are checked, not drawn.

    Raises:
      UserError: they are wrong.
    """
    found: dict[str, Any] = {}
    there = np.ones(count, bool)
    if "instance_masks" in record:
        masks = record["instance_masks"]
        if not isinstance(masks, Crops):
            masks = Crops.of_stack(_array(record, "instance_masks", np.bool_, (None, None), name))
        found["instance_masks"] = masks
    elif "segmentations" in record:
        found["segmentations"] = []
        for number, given in enumerate(record["segmentations"]):
            one = given if isinstance(given, str) else segmentation_of(given)
            if isinstance(one, str):
                raise UserError(f"{name}: {one if one is given else f'object {number} {one}'}.")
            found["segmentations"].append(one)
        there = np.array([one is not None for one in found["segmentations"]], bool)
    elif "instances" in record:
        found["instances"] = _index_map(record["instances"], count, name, max_pixels)
    if found and "mask_valid" in record:
        there = _array(record, "mask_valid", np.bool_, (), name)
    return {**found, "mask_valid": there} if found else {}


def _fitted_masks(masks: Crops, size: tuple[int, ...], name: str) -> Crops:
    """Raises:
    UserError: they are of an image of another size.
    """
    height, width = size
    if not len(masks):
        return Crops.of((), (height, width))
    if masks.size != size:
        have = "x".join(map(str, masks.size[::-1]))
        raise UserError(f"{name}: the image is {width}x{height} pixels, its masks {have}.")
    return masks


def _padded(
    masks: Sequence[np.ndarray] | np.ndarray, size: tuple[int, int], limit: int
) -> np.ndarray:
    """Masks as bits, and empty ones behind them."""
    height, width = size
    rows = np.zeros((limit, height, -(-width // 8)), np.uint8)
    for row, mask in zip(rows, masks):
        row[:] = mask
    return rows


def _index_map(index: Any, count: int, name: str, max_pixels: int) -> np.ndarray:
    """uint8 [h, w], or int32 for more objects than 255; numbers up to `count`."""
    if isinstance(index, SegmentMap):
        index = index.decoded(name + " (instances)", max_pixels)
    if not isinstance(index, np.ndarray):
        index = decode_mask(index, name + " (instances)", max_pixels)
    if index.min(initial=0) < 0 or index.max(initial=0) > count:
        raise UserError(
            f"The instances of {name} are numbered from {index.min()} to {index.max()}; "
            f"expected 0 for the background and 1 to {count}, one a box."
        )
    return index.astype(np.uint8 if count <= 255 else np.int32)


def _shown(keypoints: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The key points, those outside of the image not visible."""
    x, y, visible = np.moveaxis(keypoints, -1, 0)
    inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
    return np.stack([x, y, np.where(inside, visible, 0)], axis=-1)


def _filtered(found: dict[str, Any]) -> dict[str, Any]:
    """Without the objects of which nothing is left."""
    boxes = found["boxes"]
    kept = (boxes[:, 2:] > boxes[:, :2]).all(-1)
    if "instances" in found:
        pixels = np.bincount(found["instances"].ravel(), minlength=len(boxes) + 1)[1:]
        kept &= (pixels > 0) | ~found["mask_valid"]
    if "instance_masks" in found:
        kept &= found["instance_masks"].any() | ~found["mask_valid"]
    return found if kept.all() else _selected(found, kept)


def _largest(record: Record, count: int) -> Bool[np.ndarray, " n"]:
    """Which objects have the largest boxes; crowds stand behind all others."""
    sides = record["boxes"][:, 2:] - record["boxes"][:, :2]
    order = np.lexsort((-sides.prod(1), record["box_crowd"]))
    kept = np.zeros(len(order), bool)
    kept[order[:count]] = True
    return kept


def _selected(found: dict[str, Any], kept: Bool[np.ndarray, " n"]) -> dict[str, Any]:
    """The objects that are kept, with all that belongs to them."""
    out = {**found, **{key: found[key][kept] for key in _ROWS if key in found}}
    if "instance_masks" in found:
        out["instance_masks"] = found["instance_masks"].select(kept)
    if "instances" in found:
        numbers = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)])
        out["instances"] = numbers.astype(found["instances"].dtype)[found["instances"]]
    return out


# -- on the device ----------------------------------------------------------------------------


def _moved_keypoints(
    keypoints: Float[Array, "b n k 3"], motion: Motion, height: int, width: int
) -> Float[Array, "b n k 3"]:
    """Moved as points; where the image was mirrored, left and right ones exchange places.

    Raises:
      UserError: images are mirrored, and the order of mirrored key points is not given.
    """
    flat = keypoints.reshape(keypoints.shape[0], -1, 3)
    points = motion.points(flat[..., :2])
    inside = ((points >= 0) & (points < jnp.array([width, height]))).all(-1)
    visible = jnp.where(inside, flat[..., 2], 0.0)
    moved = jnp.concatenate([points, visible[..., None]], axis=-1).reshape(keypoints.shape)
    if motion.mirrored is None:
        return moved
    order = _checked_order(motion.keypoint_order, keypoints.shape[2])
    mirrored: Bool[Array, "b 1 1 1"] = motion.mirrored[:, None, None, None]
    return jnp.where(mirrored, moved[:, :, jnp.array(order)], moved)


def _checked_order(order: Sequence[int] | None, count: int) -> list[int]:
    if order is None or sorted(order) != list(range(count)):
        raise UserError(
            "An augmentation that mirrors a batch with key points needs 'keypoint_order', the "
            f"permutation of 0 to {count - 1} that exchanges left and right; it is {order!r}."
        )
    return list(order)
