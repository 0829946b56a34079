"""Semantic segmentation: one class a pixel, pixel cross-entropy, 255 = ignore."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvision.errors import UserError
from jaxvision.losses import cross_entropy, masked_mean, penalty
from jaxvision.metrics import ConfusionMatrix, Mean
from jaxvision.tasks import gradients, pictures
from jaxvision.tasks.inputs import Inputs

Batch = dict[str, jax.Array]


@dataclass(frozen=True)
class Segmentation:
    """See `jaxvision.tasks.Task`. Batches carry `image`, `segmentation` and `mask`."""

    annotations: ClassVar[tuple[str, ...]] = ("segmentation",)

    model: nn.Module
    class_names: tuple[str, ...]
    inputs: Inputs = field(default_factory=Inputs)
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    l1: float = 0.0
    l2: float = 0.0
    main_metric: str = "miou"

    def init(self, key: jax.Array, image_shape: tuple[int, int, int]) -> dict[str, Any]:
        return dict(self.model.init(key, jnp.zeros((1, *image_shape)), train=False))

    def _losses(self, logits: jax.Array, batch: Batch, label_smoothing: float):
        """(loss, weight, counted, truth), each [b, h, w], at the logits' size."""
        if "segmentation" not in batch:
            raise UserError("The data have no masks; is this a data set for segmentation?")
        truth = _center_crop(batch["segmentation"].astype(jnp.int32), logits.shape[1:3])
        counted = (truth < len(self.class_names)) & batch["mask"][:, None, None]
        losses, weights = cross_entropy(
            logits,
            jnp.where(counted, truth, 0),
            label_smoothing=label_smoothing,
            class_weights=self.class_weights or None,
        )
        return losses, weights, counted, truth

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        augment_key, dropout_key = jax.random.split(key)
        batch = self.inputs.train(batch, augment_key)
        logits, model_state = gradients.apply_train(
            self.model, params, model_state, batch["image"], dropout_key
        )
        losses, weights, counted, truth = self._losses(logits, batch, self.label_smoothing)
        loss = masked_mean(losses, weights, counted)
        metrics = {
            "loss": Mean.of(loss, jnp.ones(())),
            "pixel_accuracy": Mean.of(logits.argmax(-1) == truth, counted),
        }
        return loss + penalty(params, l1=self.l1, l2=self.l2), (model_state, metrics)

    def gradients(self, state: Any, batch: Batch, key: jax.Array):
        return gradients.of_loss(self.loss, state, batch, key)

    def logits(self, variables: Any, image: jax.Array) -> jax.Array:
        """float32 [b, h, w, k] for uint8 images."""
        return gradients.apply_eval(self.model, variables, self.inputs.evaluate(image))

    def predict(self, variables: Any, image: jax.Array) -> dict[str, jax.Array]:
        """`segmentation` i32 [b, h, w] and `probability` f32 [b, h, w] of the class found."""
        probabilities = jax.nn.softmax(self.logits(variables, image))
        return {
            "segmentation": probabilities.argmax(-1).astype(jnp.int32),
            "probability": probabilities.max(-1),
        }

    def metrics(self, variables: Any, batch: Batch) -> dict[str, Any]:
        logits = self.logits(variables, batch["image"])
        losses, weights, counted, truth = self._losses(logits, batch, 0.0)
        weights = jnp.where(counted, weights, 0.0)
        mean = Mean(total=jnp.sum(jnp.where(counted, losses, 0.0)), weight=jnp.sum(weights))
        confusion = ConfusionMatrix.of(
            logits.argmax(-1),
            jnp.where(counted, truth, -1),
            len(self.class_names),
            self.class_names,
        )
        return {"loss": mean, "confusion": confusion}

    def visualize(self, image: np.ndarray, outputs: Any, batch: Any) -> np.ndarray:
        """Rows of image, truth (if known) and prediction, with a legend of the classes."""
        columns = [pictures.as_colour(image)]
        size = outputs["segmentation"].shape[1:3]
        if batch and "segmentation" in batch:
            truth = np.asarray(_center_crop(np.asarray(batch["segmentation"]), size))
            columns.append(pictures.colour_map(truth))
        columns.append(pictures.colour_map(np.asarray(outputs["segmentation"])))
        return pictures.rows(columns, self.class_names)


def _center_crop(maps: Any, size: Sequence[int]) -> Any:
    """[b, h, w] cut to the logits' size, which networks without padding make smaller."""
    top, left = ((have - want) // 2 for have, want in zip(maps.shape[1:3], size))
    return maps[:, top : top + size[0], left : left + size[1]]
