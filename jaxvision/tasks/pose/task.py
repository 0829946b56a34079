"""Pose of one object an image, top-down: a heat map for each key point.

The loss is the mean squared error of heat maps and Gaussians about the key points, added up over
the places where a network gives heat maps (Newell et al., Stacked Hourglass Networks, 2016,
https://arxiv.org/abs/1603.06937).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from jaxvision.data.geometry import Geometry
from jaxvision.errors import UserError, unknown
from jaxvision.losses import Objective, Ratio, heatmap_loss
from jaxvision.metrics import Mean
from jaxvision.metrics.pose import box_lengths, hits, pck, segment_lengths
from jaxvision.ops.heatmaps import decode, flip, gaussians
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Metric, Sums, Variables
from jaxvision.tasks.inputs import Inputs

if TYPE_CHECKING:
    from ml_collections import ConfigDict

BOX = "box"
_FLIPS = ("flip_horizontal", "flip_vertical")


@dataclass(frozen=True)
class Pose(base.Task):
    """Batches carry `image`, the annotation `instances` with `keypoints`, and `valid`.

    Of each image the first valid object counts; the host transform `crop_object` leaves one.

    Attributes:
      keypoint_names: in order; the network gives a heat map for each.
      keypoint_pairs: (left, right) indices, which mirroring exchanges.
      skeleton: pairs of key points that are drawn joined.
      sigma: of the Gaussians, in pixels of the heat maps.
      segment: the two key points whose distance PCK measures by; () for the box's longer side.
      tolerance: how far away a key point may be found, in parts of that length.
      flip_test: whether heat maps are averaged with those of the mirrored image.
      threshold: the score from which a key point is drawn.
    """

    annotations: ClassVar[tuple[str, ...]] = ("instances",)
    unused: ClassVar[tuple[str, ...]] = ("instances", "instance_masks")
    metrics: ClassVar[dict[str, Metric]] = {
        "loss": Metric("lower", fatal=True),
        "loss/*": Metric("lower"),
        "pck": Metric("higher"),
        "pck/*": Metric("higher"),
    }
    main_metric: ClassVar[str] = "pck"

    model: nn.Module
    keypoint_names: tuple[str, ...]
    keypoint_pairs: tuple[tuple[int, int], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    class_names: tuple[str, ...] = ()
    inputs: Inputs = field(default_factory=Inputs)
    sigma: float = 1.0
    segment: tuple[int, ...] = ()
    tolerance: float = 0.2
    flip_test: bool = False
    threshold: float = 0.1

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        own, names = config.pose, facts.keypoint_names
        if not names:
            raise UserError(
                "The data name no key points (`keypoint_names` of a source's facts); is this a "
                "data set for poses?"
            )
        if not facts.keypoint_pairs:
            _check_mirroring(config)
        return cls(
            model=base.create_network(config, len(names)),
            keypoint_names=names,
            keypoint_pairs=facts.keypoint_pairs,
            skeleton=facts.skeleton,
            class_names=facts.class_names,
            inputs=Inputs.create(config, facts),
            sigma=own.sigma,
            segment=_segment(own.reference, names),
            tolerance=own.tolerance,
            flip_test=own.flip_test,
            threshold=own.threshold,
        )

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        augment_key, dropout_key = jax.random.split(key)
        batch = self.inputs.train(self._annotated(batch), augment_key)
        outputs, model_state = base.apply_train(
            self.model, params, model_state, batch["image"], dropout_key
        )
        heads = base.heads(outputs)
        means = {name: self._error(maps, batch) for name, maps in heads.items()}
        sums = {}
        if len(means) > 1:
            sums = {f"loss/{name}": Mean(mean.total, mean.weight) for name, mean in means.items()}
        return Objective(means), (model_state, sums)

    def _error(self, maps: jax.Array, batch: Batch) -> Ratio:
        """The squared error of heat maps."""
        truth, _, there = single(batch)
        (rows, columns), (height, width) = maps.shape[1:3], batch["image"].shape[1:3]
        points = truth[..., :2] * jnp.array([columns / width, rows / height])
        labelled = (truth[..., 2] > 0) & there[:, None]
        # What is not labelled may lie anywhere, even where a Gaussian is no number.
        points = jnp.where(labelled[..., None], points, 0.0)
        return heatmap_loss(maps, gaussians(points, (rows, columns), self.sigma), labelled)

    def _annotated(self, batch: Batch) -> Batch:
        """Raises:
        UserError: there are no key points, or of another number than names.
        """
        if "keypoints" not in batch:
            raise UserError("The data have no key points; is this a data set for poses?")
        count = batch["keypoints"].shape[2]
        if count != len(self.keypoint_names):
            raise UserError(
                f"Objects have {count} key points, of which {len(self.keypoint_names)} have names."
            )
        return batch

    def heatmaps(self, variables: Variables, image: jax.Array) -> jax.Array:
        """float32 [b, h, w, k] for uint8 images; a mean of two with `flip_test`."""
        image = self.inputs.evaluate(image)
        maps = base.apply_eval(self.model, variables, image)
        if not self.flip_test:
            return maps
        mirrored = base.apply_eval(self.model, variables, image[:, :, ::-1])
        return (maps + flip(mirrored, self.inputs.keypoint_order)) / 2

    def predict(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """`keypoints` [b, k, 3]: (x, y) in pixels of the network's image, and score."""
        maps = self.heatmaps(variables, batch["image"])
        return {"keypoints": self._in_image(maps, batch["image"])}

    @staticmethod
    def _in_image(maps: jax.Array, image: jax.Array) -> jax.Array:
        (rows, columns), (height, width) = maps.shape[1:3], image.shape[1:3]
        return decode(maps) * jnp.array([width / columns, height / rows, 1.0])

    def parts(self, variables: Variables) -> dict[str, Variables]:
        inner = {kind: tree["encoder"] for kind, tree in variables.items() if "encoder" in tree}
        found = {"model": variables}
        return {**found, "encoder": inner, "backbone": inner} if inner else found

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        maps = self.heatmaps(variables, self._annotated(batch)["image"])
        error = self._error(maps, batch)
        truth, box, there = single(batch)
        truth = truth.at[..., 2].multiply(there[:, None])
        rows = {"found": self._in_image(maps, batch["image"]), "truth": truth, "box": box}
        rows |= {name: batch[name] for name in ("geometry", "image_size")}
        return {"loss": Mean(error.total, error.weight)}, rows

    def measured(self, rows: Mapping[str, np.ndarray]) -> tuple[Any, Any, Any]:
        """(key points found [n, k, 3], true ones, reference lengths [n]), in photographs' pixels.

        Args:
          rows: of `evaluate`, of all records.
        """
        ways = [
            Geometry.from_array(matrix, size, size).inverse
            for matrix, size in zip(rows["geometry"], rows["image_size"])
        ]
        found, truth = (moved(rows[name], ways) for name in ("found", "truth"))
        if self.segment:
            return found, truth, segment_lengths(truth, *self.segment)
        corners = moved(rows["box"].reshape(-1, 2, 2), ways)
        boxes = np.concatenate([corners.min(1), corners.max(1)], -1)
        return found, truth, box_lengths(boxes)

    def score(self, rows: Mapping[str, Any]) -> dict[str, float]:
        """`pck`, and of each key point, in pixels of the photographs."""
        return pck(*hits(*self.measured(rows), self.tolerance), self.keypoint_names)

    def scores(self) -> tuple[str, ...]:
        return "pck", *(f"pck/{name}" for name in self.keypoint_names)


def single(batch: Mapping[str, Any]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(key points [b, k, 3], box [b, 4], whether there is one [b]) of each image's first object."""
    first = batch["box_valid"].argmax(1)
    image = jnp.arange(len(first))
    there = batch["box_valid"].any(1) & batch["valid"]
    return batch["keypoints"][image, first], batch["boxes"][image, first], there


def moved(points: Float[np.ndarray, "n k _"], ways: list[Geometry]) -> Float[np.ndarray, "n k _"]:
    """Points (x, y), with whatever follows, of each image along its way."""
    there = [way.points(one[:, :2]) for way, one in zip(ways, points)]
    flat = np.array(there, np.float32).reshape(*points.shape[:-1], 2)
    return np.concatenate([flat, points[..., 2:]], -1)


def _segment(reference: str, names: tuple[str, ...]) -> tuple[int, ...]:
    """The indices of the key points that `pose.reference` names; () of the box.

    Raises:
      UserError: it names no two key points.
    """
    if reference == BOX:
        return ()
    parts = tuple(part.strip() for part in reference.split(","))
    if len(parts) != 2 or parts[0] == parts[1]:
        raise UserError(
            f"pose.reference is 'box' or two key points, such as '{names[0]},{names[-1]}'; not "
            f"{reference!r}."
        )
    for part in parts:
        if part not in names:
            raise unknown("key point in pose.reference", part, names)
    return tuple(names.index(part) for part in parts)


def _check_mirroring(config: "ConfigDict") -> None:
    """Of data without mirrored pairs.

    Raises:
      UserError: something would mirror images, and not know left from right.
    """
    if config.pose.flip_test:
        raise UserError(
            "pose.flip_test mirrors images, but the data name no pairs of left and right key "
            "points (`keypoint_pairs` of a source's facts)."
        )
    for entry in config.data.augment:
        if entry.get("name") in _FLIPS and "keypoint_order" not in entry:
            raise UserError(
                f"data.augment has {entry['name']!r}, but the data name no pairs of left and right "
                "key points. Leave it out, or give it a 'keypoint_order'."
            )
