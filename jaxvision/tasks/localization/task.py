"""Classification and localisation: the class and the box of the largest object of an image.

The loss is softmax cross-entropy plus the squared error of the box, whose coordinates are parts of
the image's sides (Sermanet et al., OverFeat, 2013, https://arxiv.org/abs/1312.6229).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxvision.errors import UserError
from jaxvision.losses import Objective, cross_entropy, masked_ratio
from jaxvision.metrics import Mean, TopK
from jaxvision.ops import bits, boxes
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Metric, Sums, Variables
from jaxvision.tasks.inputs import Inputs

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def largest(
    valid: Bool[Array, "b n"],
    extent: Float[Array, "b n"],
    label: Int[Array, "b n"],
    box: Float[Array, "b n 4"],
) -> tuple[Int[Array, " b"], Float[Array, "b 4"], Bool[Array, " b"]]:
    """(class, box, whether there is one) of the object of the largest extent of each image.

    Args:
      valid: which objects are there.
      extent: visible pixels, or the box's area where there are no masks.
      label: classes.
      box: (x0, y0, x1, y1) in pixels.
    """
    chosen = jnp.where(valid, extent, -1.0).argmax(1)
    rows = jnp.arange(len(chosen))
    return label[rows, chosen], box[rows, chosen], valid.any(1)


def extent_of(batch: Mapping[str, Any]) -> Float[Array, "b n"]:
    """How large objects are: visible pixels, or the box's area of those without a mask."""
    area = boxes.area(jnp.asarray(batch["boxes"]))
    if "instance_masks" not in batch:
        return area
    pixels = bits.count(jnp.asarray(batch["instance_masks"])).astype(jnp.float32)
    return jnp.where(jnp.asarray(batch["mask_valid"]), pixels, area)


@dataclass(frozen=True)
class Localization(base.Task):
    """Batches carry `image`, the annotation `instances`, and `valid`.

    Attributes:
      box_weight: of the squared error of the box.
    """

    annotations: ClassVar[tuple[str, ...]] = ("instances",)
    metrics: ClassVar[dict[str, Metric]] = {
        "loss": Metric("lower", fatal=True),
        "iou": Metric("higher"),
        "accuracy": Metric("higher"),
        "localization_accuracy": Metric("higher"),
    }
    main_metric: ClassVar[str] = "iou"

    model: nn.Module
    class_names: tuple[str, ...]
    inputs: Inputs = field(default_factory=Inputs)
    box_weight: float = 10.0
    label_smoothing: float = 0.0

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        own, names = config.localization, facts.class_names
        base.checked_class_weights("localization", (), names)
        return cls(
            model=base.create_network(config, len(names)),
            class_names=names,
            inputs=Inputs.create(config, facts),
            box_weight=own.box_weight,
            label_smoothing=own.label_smoothing,
        )

    def _truth(self, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(class [b], box [b, 4] in parts of the sides, which rows count [b])."""
        if "boxes" not in batch:
            raise UserError("The data have no boxes; is this a data set for localisation?")
        extent = extent_of(batch)
        label, box, found = largest(batch["box_valid"], extent, batch["box_label"], batch["boxes"])
        height, width = batch["image"].shape[1:3]
        sides = jnp.array([width, height, width, height], jnp.float32)
        return label, box / sides, found & batch["valid"]

    def _losses(self, outputs: Any, label: jax.Array, box: jax.Array, smoothing: float):
        """Cross-entropy and the weighted squared error of each image."""
        losses, _ = cross_entropy(outputs["logits"], label, label_smoothing=smoothing)
        error = jnp.square(outputs["box"].astype(jnp.float32) - box).sum(-1)
        return losses + self.box_weight * error

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        augment_key, dropout_key = jax.random.split(key)
        batch = self.inputs.train(batch, augment_key)
        label, box, counted = self._truth(batch)
        outputs, model_state = base.apply_train(
            self.model, params, model_state, batch["image"], dropout_key
        )
        losses = self._losses(outputs, label, box, self.label_smoothing)
        objective = Objective({"loss": masked_ratio(losses, jnp.ones_like(losses), counted)})
        return objective, (model_state, self._measured(outputs, label, box, counted))

    def _measured(self, outputs: Any, label: jax.Array, box: jax.Array, counted: jax.Array) -> Sums:
        overlap = boxes.iou(outputs["box"].astype(jnp.float32), box)
        right = (outputs["logits"].argmax(-1) == label) & (overlap >= 0.5)
        return {
            "iou": Mean.of(overlap, counted),
            "accuracy": TopK.of(outputs["logits"].astype(jnp.float32), label, counted, k=1),
            "localization_accuracy": Mean.of(right, counted),
        }

    def _outputs(self, variables: Variables, image: jax.Array) -> Any:
        return self.model.apply(variables, self.inputs.evaluate(image), train=False)

    def predict(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """`probabilities` [b, k], and `box` [b, 4] in pixels of the network's image."""
        outputs = self._outputs(variables, batch["image"])
        height, width = batch["image"].shape[1:3]
        sides = jnp.array([width, height, width, height], jnp.float32)
        return {
            "probabilities": jax.nn.softmax(outputs["logits"].astype(jnp.float32)),
            "box": outputs["box"].astype(jnp.float32) * sides,
        }

    def parts(self, variables: Variables) -> dict[str, Variables]:
        inner = {kind: tree["encoder"] for kind, tree in variables.items() if "encoder" in tree}
        return {"model": variables, "encoder": inner, "backbone": inner}

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        outputs = self._outputs(variables, batch["image"])
        label, box, counted = self._truth(batch)
        losses = self._losses(outputs, label, box, 0.0)
        sums = {"loss": Mean.of(losses, counted), **self._measured(outputs, label, box, counted)}
        return sums, {}
