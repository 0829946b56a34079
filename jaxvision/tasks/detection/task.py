"""Detection: a network that gives boxes with classes and scores, and its own losses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from jaxvision.data.geometry import Geometry
from jaxvision.errors import UserError
from jaxvision.losses import Objective
from jaxvision.metrics import Mean
from jaxvision.metrics.detection import COCO_METRICS, Found, Truth, coco_scores, voc_scores
from jaxvision.models.detection.detr import SetDetector, of_best_objects
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Metric, Sums, Variables
from jaxvision.tasks.detection.tiles import joined
from jaxvision.tasks.inputs import Inputs

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_PROPOSALS = ("proposals", "proposal_valid")
_FOUND = ("boxes", "scores", "labels", "valid")


@dataclass(frozen=True)
class Detection(base.Task):
    """Batches carry `image`, the annotation `instances`, and `valid`; perhaps `proposals` too.

    The network is called with the objects in training and gives its losses, by name, as
    `losses.Ratio`; else it gives `boxes` [b, n, 4] in pixels of its image, `scores` and `labels`
    [b, n], and which rows are objects, `valid`. One whose class says `PROPOSALS = True` is given
    `proposals` [b, p, 4] and `proposal_valid` [b, p] as well.

    Attributes:
      voc: years of PASCAL VOC by whose rules average precision is computed too.
      clip: whether boxes are cut off at the photograph's edges.
      threshold: the score from which an object is drawn and listed.
    """

    annotations: ClassVar[tuple[str, ...]] = ("instances", "proposals")
    unused: ClassVar[tuple[str, ...]] = ("instances", "instance_masks", "keypoints")
    metrics: ClassVar[dict[str, Metric]] = {
        "loss": Metric("lower", fatal=True),
        "loss/*": Metric("lower"),
        **{name: Metric("higher") for name in COCO_METRICS},
        "map_voc*": Metric("higher"),
        "ap/*": Metric("higher"),
        "ap_voc*": Metric("higher"),
    }
    main_metric: ClassVar[str] = "ap"

    model: nn.Module
    class_names: tuple[str, ...]
    inputs: Inputs = field(default_factory=Inputs)
    voc: tuple[str, ...] = ()
    clip: bool = True
    threshold: float = 0.5

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        names = facts.class_names
        if not names:
            raise UserError("The data have no classes; name them in data.classes.")
        return cls(
            model=cls.network(config, facts),
            class_names=names,
            inputs=Inputs.create(config, facts),
            **cls.options(config[config.task], facts),
        )

    @classmethod
    def network(cls, config: "ConfigDict", facts: Any) -> nn.Module:
        """The configured network, of the classes of the data."""
        return base.create_network(config, len(facts.class_names))

    @classmethod
    def options(cls, own: "ConfigDict", facts: Any) -> dict[str, Any]:
        """Attributes that the task's group of a configuration and the data decide."""
        return {"voc": tuple(own.voc), "clip": own.clip, "threshold": own.threshold}

    @property
    def needs(self) -> tuple[str, ...]:
        return _PROPOSALS if getattr(type(self.model), "PROPOSALS", False) else ()

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        augment_key, dropout_key = jax.random.split(key)
        batch = self.inputs.train(_with_boxes(batch), augment_key)
        means, updated = self.model.apply(
            {"params": params, **model_state},
            batch["image"],
            train=True,
            targets=self.targets(batch),
            **self._more(batch),
            mutable=list(model_state),
            rngs={"dropout": dropout_key},
        )
        sums = {f"loss/{name}": Mean(mean.total, mean.weight) for name, mean in means.items()}
        return Objective(means), ({**model_state, **updated}, sums)

    def targets(self, batch: Batch) -> dict[str, jax.Array]:
        """What the network learns of a batch."""
        there = batch["box_valid"] & batch["valid"][:, None]
        return {
            "boxes": batch["boxes"],
            "box_label": batch["box_label"],
            "box_valid": there & ~batch["box_crowd"],
            "box_crowd": there & batch["box_crowd"],
            "valid": batch["valid"],
        }

    def predict(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """`boxes` [b, n, 4] in pixels of the network's image; `scores`, `labels`, `valid`."""
        image = self.inputs.evaluate(batch["image"])
        found: Any = self.model.apply(variables, image, train=False, **self._more(batch))
        return found

    def _more(self, batch: Batch) -> dict[str, Any]:
        """What the network takes beside the image.

        Raises:
          UserError: the batch lacks it.
        """
        if any(name not in batch for name in self.needs):
            raise UserError(
                f"{type(self.model).__name__} needs proposals of objects, which the data lack; the "
                "host transform {'name': 'selective_search'} finds them, in both "
                "data.train_transforms and data.eval_transforms."
            )
        return {name: batch[name] for name in self.needs}

    def join_tiles(self, outputs: Any, corners: Any, tile: Any, size: Any) -> dict[str, np.ndarray]:
        """The objects of a photograph from those of its tiles; see `tiles.joined`."""
        return joined(outputs, corners, tile, size, getattr(self.model, "nms_threshold", 0.5))

    def stages(self, variables: Variables, image: jax.Array) -> dict[str, jax.Array]:
        """What the network sees on its way in uint8 images, `heat/NAME` [b, i, j] from 0 to 1 and
        perhaps `proposals`, and what `predict` gives.

        Raises:
          UserError: the network shows nothing.
        """
        if not hasattr(self.model, "stages"):
            raise UserError(
                f"{type(self.model).__name__} has no stages that could be drawn; networks with "
                "region proposals have, and CenterNet."
            )
        found = self.predict(variables, {"image": image}, jax.random.key(0))
        seen: Any = self.model.apply(variables, self.inputs.evaluate(image), method="stages")
        return {**seen, **found}

    def object_attention(
        self, variables: Variables, image: jax.Array, count: int
    ) -> dict[str, jax.Array]:
        """What is found in uint8 images, at most `count` objects, and as `attention` [b, n, i, j]
        where their queries look; as `places` [b, i, j, i, j] where each place of that map does.

        Raises:
          UserError: the network has no queries.
        """
        if not isinstance(self.model, SetDetector):
            raise UserError(
                f"{type(self.model).__name__} has no queries whose attention could be drawn; DETR "
                "and YOLOS have."
            )
        image = self.inputs.evaluate(image)
        places = self.model.place_attention(variables, image)
        return {**of_best_objects(self.model, variables, image, count), "places": places}

    def parts(self, variables: Variables) -> dict[str, Variables]:
        place = getattr(type(self.model), "ENCODER", "encoder")
        inner = {kind: tree[place] for kind, tree in variables.items() if place in tree}
        found = {"model": variables}
        return {**found, "encoder": inner, "backbone": inner} if inner else found

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        batch = _with_boxes(batch)
        return {}, self.object_rows(batch, self.predict(variables, batch, key))

    @staticmethod
    def object_rows(batch: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
        """What `score` takes of a batch, or a record, and what was found there; see `predict`."""
        names = ("boxes", "box_label", "box_valid", "box_crowd", "box_area")
        rows = {f"true_{name}": batch[name] for name in names if name in batch}
        rows |= {f"found_{name}": found[name] for name in _FOUND}
        return {**rows, **{name: batch[name] for name in ("geometry", "image_size")}}

    def score(self, rows: Mapping[str, Any]) -> dict[str, float]:
        """COCO's numbers, and those of `detection.voc`, of boxes on the photographs."""
        return self.score_objects(*on_photographs(rows, self.clip), rows)

    def score_objects(
        self, found: Found, truth: Truth, rows: Mapping[str, Any]
    ) -> dict[str, float]:
        """Metrics of the objects on the photographs, and of what else the rows say of them."""
        scores = coco_scores(found, truth, range(len(rows["geometry"])), self.class_names)
        for year in self.voc:
            scores |= voc_scores(found, truth, self.class_names, int(year))
        return scores

    def scores(self) -> tuple[str, ...]:
        return *COCO_METRICS, *(f"map_voc{year}" for year in self.voc)


def _with_boxes(batch: Batch) -> Batch:
    """Raises:
    UserError: there are none.
    """
    if "boxes" not in batch:
        raise UserError("The data have no boxes; is this a data set for detection?")
    return batch


def on_photograph(
    way: Geometry, boxes: Float[np.ndarray, "n 4"], clip: bool
) -> Float[np.ndarray, "n 4"]:
    """Boxes of a network's image on the photograph, which it was made of along `way`."""
    if clip:
        return way.inverse_boxes(boxes)
    corners = way.inverse_points(boxes.reshape(-1, 2, 2))
    return np.concatenate([corners.min(1), corners.max(1)], -1)  # mirrored ones too


def on_photographs(rows: Mapping[str, np.ndarray], clip: bool = True) -> tuple[Found, Truth]:
    """What is found and what is there, in pixels of the photographs, image after image.

    Args:
      rows: of `Detection.evaluate`, of all records.
      clip: whether found boxes are cut off at the edges.
    """
    ways = [
        Geometry.from_array(matrix, size, size)
        for matrix, size in zip(rows["geometry"], rows["image_size"])
    ]

    def back(name: str, kept: np.ndarray, clip: bool) -> tuple[np.ndarray, np.ndarray]:
        """(image, boxes) of the objects that are kept."""
        boxes = [
            on_photograph(way, row[mask], clip) for way, row, mask in zip(ways, rows[name], kept)
        ]
        return np.nonzero(kept)[0], np.concatenate([*boxes, np.zeros((0, 4), np.float32)])

    kept = rows["found_valid"]
    image, boxes = back("found_boxes", kept, clip)
    found = Found(image, boxes, rows["found_labels"][kept], rows["found_scores"][kept])
    kept = rows["true_box_valid"]
    image, boxes = back("true_boxes", kept, True)
    if "true_box_area" in rows:
        scale = np.array([abs(np.linalg.det(way.matrix)) for way in ways])
        area = rows["true_box_area"][kept] / scale[image]
    else:
        area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    truth = Truth(image, boxes, rows["true_box_label"][kept], rows["true_box_crowd"][kept], area)
    return found, truth
