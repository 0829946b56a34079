"""Semantic segmentation: one class a pixel or voxel; 255 = ignore.

The loss is a sum of terms: cross-entropy, perhaps of the hardest pixels alone, focal, and losses of
regions. Networks with auxiliary heads return a dict in training: `logits`, and `aux...` whose
losses are added with a weight.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvision import losses
from jaxvision.errors import UserError
from jaxvision.losses import hard_examples, masked_mean, penalty
from jaxvision.metrics import BoundaryF1, ConfusionMatrix, Mean
from jaxvision.tasks import gradients, pictures
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.views import Views

Batch = dict[str, jax.Array]

# Of each pixel: (loss, weight). Of regions: one number.
PIXEL_LOSSES: dict[str, Callable[..., Any]] = {
    "cross_entropy": losses.cross_entropy,
    "focal": losses.focal,
}
REGION_LOSSES: dict[str, Callable[..., Any]] = {
    "dice": losses.dice,
    "soft_iou": losses.soft_iou,
    "tversky": losses.tversky,
    "lovasz": losses.lovasz,
}


@dataclass(frozen=True)
class Segmentation:
    """See `jaxvision.tasks.Task`. Batches carry `image`, `segmentation` and `valid`.

    Attributes:
      criterion: terms of the loss, joined by "+".
      loss_options: keyword arguments of the terms, by name.
      hard_share: the part of pixels that cross-entropy and focal keep at least; 0 keeps all.
      hard_threshold: pixels whose class has less probability are kept too.
      auxiliary_weight: of the losses of auxiliary heads.
      views: what evaluation and prediction average over.
      void_class: a class of the network's that metrics take for void: the last one, or "".
      void_counts: whether what is predicted on void is a false positive.
      boundary: tolerance of the boundary F1 as a part of the diagonal; 0 leaves it out.
    """

    annotations: ClassVar[tuple[str, ...]] = ("segmentation",)

    model: nn.Module
    class_names: tuple[str, ...]
    inputs: Inputs = field(default_factory=Inputs)
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    l1: float = 0.0
    l2: float = 0.0
    criterion: str = "cross_entropy"
    loss_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hard_share: float = 0.0
    hard_threshold: float = 0.7
    auxiliary_weight: float = 0.4
    views: Views = field(default_factory=Views)
    void_class: str = ""
    void_counts: bool = False
    boundary: float = 0.0
    main_metric: str = "miou"

    def init(self, key: jax.Array, image_shape: tuple[int, ...]) -> dict[str, Any]:
        return dict(self.model.init(key, jnp.zeros((1, *image_shape)), train=False))

    def _truth(self, batch: Batch, size: Sequence[int]) -> tuple[jax.Array, jax.Array]:
        """(class indices, which count), each [b, *size]: what the logits are compared with."""
        if "segmentation" not in batch:
            raise UserError("The data have no masks; is this a data set for segmentation?")
        truth = _center_crop(batch["segmentation"].astype(jnp.int32), size)
        rows = batch["valid"].reshape(-1, *[1] * len(size))
        return truth, (truth < len(self.class_names)) & rows

    def _pixel_loss(self, name: str, logits: jax.Array, targets: jax.Array, smoothing: float):
        """(loss, weight) of each pixel."""
        more: dict[str, Any] = dict(self.loss_options.get(name, {}))
        if name == "cross_entropy":
            more["label_smoothing"] = smoothing
        return PIXEL_LOSSES[name](logits, targets, class_weights=self.class_weights or None, **more)

    def _criterion(self, logits: jax.Array, truth: jax.Array, counted: jax.Array) -> jax.Array:
        """The sum of the configured terms."""
        targets, total = jnp.where(counted, truth, 0), jnp.zeros(())
        kept = counted
        if self.hard_share:
            nll, _ = losses.cross_entropy(logits, targets)
            kept = hard_examples(nll, counted, share=self.hard_share, threshold=self.hard_threshold)
        for name in self.criterion.split("+"):
            if name in PIXEL_LOSSES:
                values, weights = self._pixel_loss(name, logits, targets, self.label_smoothing)
                total += masked_mean(values, weights, kept)
            else:
                more = self.loss_options.get(name, {})
                total += REGION_LOSSES[name](logits, targets, counted, **more)
        return total

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        augment_key, dropout_key = jax.random.split(key)
        batch = self.inputs.train(batch, augment_key)
        outputs, model_state = gradients.apply_train(
            self.model, params, model_state, batch["image"], dropout_key
        )
        outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
        loss = jnp.zeros(())
        for name, logits in outputs.items():
            share = 1.0 if name == "logits" else self.auxiliary_weight
            loss += share * self._criterion(logits, *self._truth(batch, logits.shape[1:-1]))
        logits = outputs["logits"]
        truth, counted = self._truth(batch, logits.shape[1:-1])
        metrics = {
            "loss": Mean.of(loss, jnp.ones(())),
            "pixel_accuracy": Mean.of(logits.argmax(-1) == truth, counted),
        }
        return loss + penalty(params, l1=self.l1, l2=self.l2), (model_state, metrics)

    def gradients(self, state: Any, batch: Batch, key: jax.Array):
        return gradients.of_loss(self.loss, state, batch, key)

    def logits(self, variables: Any, image: jax.Array) -> jax.Array:
        """float32 [b, h, w, k] for uint8 images, or the logarithm of several views' mean."""
        see = partial(gradients.apply_eval, self.model, variables)
        return self.views.logits(see, self.inputs.evaluate(image))

    def predict(self, variables: Any, image: jax.Array) -> dict[str, jax.Array]:
        """`segmentation` i32 [b, h, w] and `probability` f32 [b, h, w] of the class found.

        What a network without padding would leave out at the border is seen mirrored.
        """
        see = partial(gradients.apply_eval, self.model, variables)
        seen = self.inputs.evaluate(image)
        probabilities = jax.nn.softmax(self.views.covering(see, seen).logits(see, seen))
        return {
            "segmentation": probabilities.argmax(-1).astype(jnp.int32),
            "probability": probabilities.max(-1),
        }

    def metrics(self, variables: Any, batch: Batch) -> dict[str, Any]:
        logits = self.logits(variables, batch["image"])
        truth, counted = self._truth(batch, logits.shape[1:-1])
        values, weights = self._pixel_loss(
            "cross_entropy", logits, jnp.where(counted, truth, 0), 0.0
        )
        weights = jnp.where(counted, weights, 0.0)
        mean = Mean(total=jnp.sum(jnp.where(counted, values, 0.0)), weight=jnp.sum(weights))
        names = self.class_names[:-1] if self.void_class else self.class_names
        # Rows that only fill the batch hold no pixel; void pixels are another matter.
        rows = batch["valid"].reshape(-1, *[1] * (truth.ndim - 1))
        seen, guess = jnp.where(rows, truth, -1), logits.argmax(-1)
        found: dict[str, Any] = {
            "loss": mean,
            "confusion": ConfusionMatrix.of(guess, seen, len(names), names, self.void_counts),
        }
        if self.boundary:
            found["boundary_f1"] = BoundaryF1.of(guess, seen, len(names), self.boundary)
        return found

    def visualize(self, image: np.ndarray, outputs: Any, batch: Any) -> np.ndarray:
        """Rows of image, truth (if known) and prediction, with a legend of the classes.

        Of volumes the slice in the middle is shown.
        """
        found = np.asarray(outputs["segmentation"])
        truth = None
        if batch and "segmentation" in batch:
            truth = np.asarray(_center_crop(np.asarray(batch["segmentation"]), found.shape[1:]))
        if image.ndim == 5:
            middle = found.shape[1] // 2
            image = _center_crop(image[..., 0], found.shape[1:])[:, middle, ..., None]
            found, truth = found[:, middle], None if truth is None else truth[:, middle]
        columns = [pictures.as_colour(image)]
        if truth is not None:
            columns.append(pictures.colour_map(truth))
        columns.append(pictures.colour_map(found))
        return pictures.rows(columns, self.class_names)


def _center_crop(maps: Any, size: Sequence[int]) -> Any:
    """[b, *size] cut to the logits' size, which networks without padding make smaller."""
    for axis, want in enumerate(size, start=1):
        start = (maps.shape[axis] - want) // 2
        maps = maps[(slice(None),) * axis + (slice(start, start + want),)]
    return maps
