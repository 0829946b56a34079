"""Image classification: one class an image; softmax cross-entropy, multiclass hinge or margin loss.

Networks with auxiliary heads return a dict in training: `logits`, and `aux...` whose losses are
added with a weight. One with a distillation token (DeiT) returns `logits` and `distilled`; one that
decodes the image again (CapsNet) takes the label too, and returns `logits` and `reconstruction`.
"""

import inspect
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvision.errors import UserError
from jaxvision.losses import (
    cross_entropy,
    margin_loss,
    masked_mean,
    multiclass_hinge,
    penalty,
)
from jaxvision.metrics import Mean, TopK
from jaxvision.tasks import gradients, pictures
from jaxvision.tasks.inputs import Inputs

Batch = dict[str, jax.Array]


@dataclass(frozen=True)
class Teacher:
    """A trained network that the student learns from beside the labels.

    Hinton et al., Distilling the Knowledge in a Neural Network, 2015,
    https://arxiv.org/abs/1503.02531; hard labels: Touvron et al. 2020,
    https://arxiv.org/abs/2012.12877.

    Its variables are the collection "teacher" of the state, so that a run resumes without the file
    that they came from.

    Attributes:
      model: the network; it sees the images that the student sees.
      kind: "hard" (its class is a label) or "soft" (its probabilities are).
      weight: of its loss; that of the labels has the rest.
      temperature: what both networks' logits are divided by, for "soft".
    """

    model: nn.Module
    kind: str = "hard"
    weight: float = 0.5
    temperature: float = 1.0

    def loss(self, variables: Any, image: jax.Array, student: jax.Array) -> jax.Array:
        """Of each sample, float32 [b]."""
        logits = jax.lax.stop_gradient(gradients.apply_eval(self.model, variables, image))
        if self.kind == "hard":
            return cross_entropy(student, logits.argmax(-1))[0]
        targets = jax.nn.softmax(logits / self.temperature)
        losses, _ = cross_entropy(student, targets, temperature=self.temperature)
        entropy = -jnp.sum(targets * jnp.log(jnp.maximum(targets, 1e-30)), -1)
        return (losses - entropy) * self.temperature**2  # Kullback-Leibler


@dataclass(frozen=True)
class Classification:
    """See `jaxvision.tasks.Task`. Batches carry `image`, `label` and `valid`."""

    annotations: ClassVar[tuple[str, ...]] = ("label",)

    model: nn.Module
    class_names: tuple[str, ...]
    inputs: Inputs = field(default_factory=Inputs)
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    l1: float = 0.0
    l2: float = 0.0
    criterion: str = "cross_entropy"  # or "hinge", "margin"
    auxiliary_weight: float = 0.3
    reconstruction_weight: float = 5e-4
    teacher: Teacher | None = None
    main_metric: str = "accuracy"

    def init(self, key: jax.Array, image_shape: tuple[int, int, int]) -> dict[str, Any]:
        image = jnp.zeros((1, *image_shape))
        variables = dict(self.model.init(key, image, train=False))
        if self.teacher is not None:
            variables["teacher"] = dict(self.teacher.model.init(key, image, train=False))
        return variables

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        augment_key, dropout_key = jax.random.split(key)
        if "label" not in batch:
            raise UserError("The data have no labels; is this a data set for classification?")
        batch = self.inputs.train(batch, augment_key)
        image, mask = batch["image"], batch["valid"]
        targets = batch["label_probs"] if "label_probs" in batch else batch["label"]
        conditioned = "label" in inspect.signature(self.model.__call__).parameters
        outputs, model_state = gradients.apply_train(
            self.model,
            params,
            model_state,
            image,
            dropout_key,
            **({"label": targets} if conditioned else {}),
        )
        outputs = dict(outputs) if isinstance(outputs, dict) else {"logits": outputs}
        reconstruction = outputs.pop("reconstruction", None)
        distilled = outputs.pop("distilled", outputs["logits"])
        if self.teacher is None:
            outputs["logits"] = (outputs["logits"] + distilled) / 2
        logits = outputs["logits"]
        loss = jnp.zeros(())
        for name, output in outputs.items():
            losses, weights = self._losses(output, targets, self.label_smoothing)
            share = 1.0 if name == "logits" else self.auxiliary_weight
            loss += share * masked_mean(losses, weights, mask)
        if reconstruction is not None:
            squares = jnp.square((reconstruction - image).astype(jnp.float32)).sum((1, 2, 3))
            loss += self.reconstruction_weight * masked_mean(squares, jnp.ones_like(squares), mask)
        if self.teacher is not None:
            taught = self.teacher.loss(model_state["teacher"], image, distilled)
            taught = masked_mean(taught, jnp.ones_like(taught), mask)
            loss = (1 - self.teacher.weight) * loss + self.teacher.weight * taught
        labels = targets.argmax(-1) if targets.ndim == 2 else targets
        metrics = {
            "loss": Mean.of(loss, jnp.ones(())),
            "accuracy": TopK.of(logits, labels, mask, k=1),
        }
        return loss + penalty(params, l1=self.l1, l2=self.l2), (model_state, metrics)

    def _losses(self, logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0):
        """(loss, weight) of each sample."""
        class_weights = self.class_weights or None
        if self.criterion == "hinge":
            return multiclass_hinge(logits, targets, class_weights=class_weights)
        if self.criterion == "margin":
            return margin_loss(logits, targets, class_weights=class_weights)
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
        mask = batch["valid"]
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
