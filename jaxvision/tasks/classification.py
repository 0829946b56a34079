"""Image classification: one class an image; softmax cross-entropy or the multiclass hinge."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvision.errors import UserError
from jaxvision.losses import cross_entropy, masked_mean, multiclass_hinge, penalty
from jaxvision.metrics import Mean, TopK
from jaxvision.tasks import gradients, pictures
from jaxvision.tasks.inputs import Inputs

Batch = dict[str, jax.Array]


@dataclass(frozen=True)
class Classification:
    """See `jaxvision.tasks.Task`. Batches carry `image`, `label` and `mask`."""

    annotations: ClassVar[tuple[str, ...]] = ("label",)

    model: nn.Module
    class_names: tuple[str, ...]
    inputs: Inputs = field(default_factory=Inputs)
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    l1: float = 0.0
    l2: float = 0.0
    criterion: str = "cross_entropy"  # or "hinge"
    main_metric: str = "accuracy"

    def init(self, key: jax.Array, image_shape: tuple[int, int, int]) -> dict[str, Any]:
        return dict(self.model.init(key, jnp.zeros((1, *image_shape)), train=False))

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        augment_key, dropout_key = jax.random.split(key)
        if "label" not in batch:
            raise UserError("The data have no labels; is this a data set for classification?")
        batch = self.inputs.train(batch, augment_key)
        logits, model_state = gradients.apply_train(
            self.model, params, model_state, batch["image"], dropout_key
        )
        targets = batch["label_probs"] if "label_probs" in batch else batch["label"]
        losses, weights = self._losses(logits, targets, self.label_smoothing)
        loss = masked_mean(losses, weights, batch["mask"])
        labels = targets.argmax(-1) if targets.ndim == 2 else targets
        metrics = {
            "loss": Mean.of(loss, jnp.ones(())),
            "accuracy": TopK.of(logits, labels, batch["mask"], k=1),
        }
        return loss + penalty(params, l1=self.l1, l2=self.l2), (model_state, metrics)

    def _losses(self, logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0):
        """(loss, weight) of each sample."""
        class_weights = self.class_weights or None
        if self.criterion == "hinge":
            return multiclass_hinge(logits, targets, class_weights=class_weights)
        return cross_entropy(
            logits, targets, label_smoothing=label_smoothing, class_weights=class_weights
        )

    def gradients(self, state: Any, batch: Batch, key: jax.Array):
        return gradients.of_loss(self.loss, state, batch, key)

    def logits(self, variables: Any, image: jax.Array) -> jax.Array:
        """float32 [b, k] for uint8 images."""
        return gradients.apply_eval(self.model, variables, self.inputs.evaluate(image))

    def predict(self, variables: Any, image: jax.Array) -> dict[str, jax.Array]:
        """`probabilities` [b, k] and `label` [b]."""
        logits = self.logits(variables, image)
        return {"probabilities": jax.nn.softmax(logits), "label": logits.argmax(-1)}

    def metrics(self, variables: Any, batch: Batch) -> dict[str, Any]:
        logits = self.logits(variables, batch["image"])
        mask = batch["mask"]
        losses, weights = self._losses(logits, batch["label"])
        weights = jnp.where(mask, weights, 0.0)
        mean = Mean(total=jnp.sum(jnp.where(mask, losses, 0.0)), weight=jnp.sum(weights))
        found = {"loss": mean, "accuracy": TopK.of(logits, batch["label"], mask, k=1)}
        if len(self.class_names) > 5:
            found["top5_accuracy"] = TopK.of(logits, batch["label"], mask, k=5)
        return found

    def visualize(self, image: np.ndarray, outputs: Any, batch: Any) -> np.ndarray:
        """A grid of images, each with its class and probability; wrong ones in red."""
        probabilities = np.asarray(outputs["probabilities"])
        predicted = probabilities.argmax(-1)
        truth = np.asarray(batch["label"] if batch and "label" in batch else predicted)
        captions = [
            f"{self.class_names[guess]} {probabilities[row, guess]:.0%}"
            + (f" (is {self.class_names[true]})" if guess != true else "")
            for row, (guess, true) in enumerate(zip(predicted, truth))
        ]
        wrong = [bool(w) for w in predicted != truth]
        return pictures.captioned_grid(image, captions, wrong)
