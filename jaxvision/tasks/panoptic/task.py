"""Panoptic segmentation: instances of things, and the class of stuff of all other pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.metrics.panoptic import Numbered, PanopticQuality
from jaxvision.ops.panoptic import add_stuff, fuse, number_masks
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Metric, Sums, Variables
from jaxvision.tasks.instances.task import Instances

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_PARTS = ("masks", "semantic")


@dataclass(frozen=True)
class Panoptic(Instances):
    """As `Instances`, with networks that find stuff too: `PARTS = ("masks", "semantic")`.

    Classes of the data are of things and of stuff, in any order. A network has those of things,
    `num_classes`, and those of stuff, `stuff_classes`, each in their order: it gives `semantic`
    [b, i, j, s + 1], logits of stuff and last of all things, on any grid, and learns from
    `segmentation` [b, h, w], classes in this order, those above them void.

    Segments are numbered as `ops.panoptic` says: 0 is void, then come the objects in their order,
    then the classes of stuff.

    Attributes, beside those of `Instances`:
      things: indices of the classes whose objects are told apart.
      overlap, stuff_area: see `ops.panoptic.fuse`, which takes objects from `threshold` on.
    """

    annotations: ClassVar[tuple[str, ...]] = ("instances", "segmentation")
    metrics: ClassVar[dict[str, Metric]] = {
        **{name: Instances.metrics[name] for name in ("loss", "loss/*")},
        **{
            f"{name}{part}": Metric("higher")
            for part in ("", "_things", "_stuff")
            for name in ("pq", "sq", "rq")
        },
        **{f"{name}/*": Metric("higher") for name in ("pq", "sq", "rq")},
        **Instances.metrics,
    }
    main_metric: ClassVar[str] = "pq"

    things: tuple[int, ...] = ()
    overlap: float = 0.5
    stuff_area: int = 4096

    @classmethod
    def network(cls, config: "ConfigDict", facts: Any) -> nn.Module:
        """The configured network, of the things and the stuff of the data.

        Raises:
          UserError: it does not find both, or the data do not have both.
        """
        name, count = config.model.name, len(facts.things)
        parts = getattr(models.variant(name).module, "PARTS", ())
        if not set(_PARTS) <= set(parts):
            raise UserError(
                f"{name} does not find both masks of things and the class of stuff; "
                "panoptic_fpn_resnet50 does."
            )
        if not count:
            raise UserError(
                "The data do not say which of their classes are things, whose objects are told "
                "apart. Sources that have both things and stuff do: docs/panoptic.md."
            )
        if count == len(facts.class_names):
            raise UserError(
                f"All {count} classes of the data are things; panoptic segmentation wants one of "
                "stuff at least, such as the background: docs/panoptic.md."
            )
        return base.create_network(config, count, stuff_classes=len(facts.class_names) - count)

    @classmethod
    def options(cls, own: "ConfigDict", facts: Any) -> dict[str, Any]:
        return {
            **super().options(own, facts),
            "things": facts.things,
            "overlap": own.overlap,
            "stuff_area": own.stuff_area,
        }

    @property
    def stuff(self) -> tuple[int, ...]:
        """Indices of the classes that are no things."""
        return tuple(k for k in range(len(self.class_names)) if k not in self.things)

    def targets(self, batch: Batch) -> dict[str, jax.Array]:
        targets = super().targets(batch)
        place = np.zeros(len(self.class_names), np.int32)
        place[list(self.things)] = np.arange(len(self.things))
        labels = targets["box_label"]
        thing = self._are_things(labels)
        return {
            **targets,
            "box_label": jnp.asarray(place)[labels],
            "box_valid": targets["box_valid"] & thing,
            "box_crowd": targets["box_crowd"] & thing,
            "segmentation": self._stuff_of(batch),
        }

    def _are_things(self, labels: jax.Array) -> jax.Array:
        return jnp.asarray(np.isin(np.arange(len(self.class_names)), self.things))[labels]

    def _stuff_of(self, batch: Batch) -> jax.Array:
        """The place of each pixel's class among those of stuff; all things have one behind these,
        and void has one more.

        Raises:
          UserError: the data do not say it.
        """
        if "segmentation" not in batch:
            raise UserError("The data have objects, but do not say the class of each pixel.")
        count = len(self.stuff)
        place = np.full(len(self.class_names) + 1, count, np.int32)
        place[list(self.stuff)] = np.arange(count)
        place[-1] = count + 1
        classes = jnp.minimum(batch["segmentation"].astype(jnp.int32), len(self.class_names))
        return jnp.asarray(place)[classes]

    def predict(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """As of `Instances`, and `segments` i32 [b, h, w], the number of each pixel's segment."""
        found = dict(super().predict(variables, batch, key))
        height, width = batch["image"].shape[1:3]
        sure = found["valid"] & (found["scores"] >= self.threshold)
        segments = fuse(
            found["masks"],
            found["boxes"],
            sure,
            found.pop("semantic"),
            (height, width),
            self.overlap,
            self.stuff_area,
        )
        labels = jnp.asarray(self.things, jnp.int32)[found["labels"]]
        return {**found, "labels": labels, "segments": segments}

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        self.check(batch)
        found = self.predict(variables, batch, key)
        seen = Numbered(found["segments"], self.labels_of(found["labels"]))
        there = self.segments_of(batch)
        quality = PanopticQuality.of(seen, there, batch["valid"], self.class_names, self.things)
        return {"pq": quality}, self.rows(batch, found)

    def segments_of(self, batch: Batch) -> Numbered:
        """The segments that are there. Pixels of a thing that are of no object's mask are void."""
        valid = batch["box_valid"] & batch.get("mask_valid", batch["box_valid"])
        valid &= self._are_things(batch["box_label"])
        width, objects, stuff = batch["image"].shape[2], valid.shape[1], len(self.stuff)

        def one(masks: jax.Array, valid: jax.Array, classes: jax.Array) -> jax.Array:
            return add_stuff(number_masks(masks, valid, width), classes, objects, stuff)

        numbers = jax.vmap(one)(batch["instance_masks"], valid, self._stuff_of(batch))
        crowd = jnp.pad(batch["box_crowd"], ((0, 0), (0, stuff)))
        return Numbered(numbers, self.labels_of(batch["box_label"]), crowd)

    def labels_of(self, objects: jax.Array) -> jax.Array:
        """The class of each segment: those of the objects [b, n], and behind them the stuff's."""
        stuff = jnp.broadcast_to(jnp.asarray(self.stuff), (len(objects), len(self.stuff)))
        return jnp.concatenate([objects, stuff], 1)

    def score(self, rows: Mapping[str, Any]) -> dict[str, float]:
        """As of `Instances`, of which the classes of stuff have no objects."""
        never = {self.class_names[index] for index in self.stuff}
        scores = super().score(rows)
        return {k: v for k, v in scores.items() if k.partition("/")[2] not in never}

    def join_tiles(self, outputs: Any, corners: Any, tile: Any, size: Any) -> dict[str, np.ndarray]:
        """What one tile sees of a photograph.

        Raises:
          UserError: there are several.
        """
        if len(outputs) > 1:
            raise UserError(
                "Segments of several tiles are not joined. Predict without --tile, or with tiles "
                f"as large as the photograph, {size[0]}x{size[1]}."
            )
        return dict(outputs[0])
