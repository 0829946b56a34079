"""Multi-label classification: any number of classes an image, each with a sigmoid of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvision.errors import UserError
from jaxvision.losses import Objective, Ratio, binary_cross_entropy, masked_ratio, penalty
from jaxvision.metrics import LabelCounts, Mean, average_precision
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Metric, Sums, Variables
from jaxvision.tasks.inputs import Inputs

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclass(frozen=True)
class Multilabel(base.Task):
    """Batches carry `image`, `labels` (bool [b, k]) and `valid`.

    Attributes:
      threshold: the probability from which a class is said to be there.
      positive_weights: of each class's loss where it is there; () is one for all.
      label_smoothing: how far targets are moved towards one half.
      l2: penalty on kernels.
      auxiliary_weight: of the losses of auxiliary heads.
    """

    annotations: ClassVar[tuple[str, ...]] = ("labels",)
    metrics: ClassVar[dict[str, Metric]] = {
        "loss": Metric("lower", fatal=True),
        "map": Metric("higher"),
        "micro_f1": Metric("higher"),
        "macro_f1": Metric("higher"),
        "exact_match": Metric("higher"),
        "ap/*": Metric("higher"),
    }
    main_metric: ClassVar[str] = "map"

    model: nn.Module
    class_names: tuple[str, ...]
    inputs: Inputs = field(default_factory=Inputs)
    threshold: float = 0.5
    positive_weights: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    l2: float = 0.0
    auxiliary_weight: float = 0.3

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        own, names = config.multilabel, facts.class_names
        if not names:
            raise UserError("The data have no classes; name them in data.classes.")
        weights = tuple(own.positive_weights)
        if weights and len(weights) != len(names):
            raise UserError(
                f"multilabel.positive_weights has {len(weights)} values for {len(names)} classes."
            )
        return cls(
            model=base.create_network(config, len(names)),
            class_names=names,
            inputs=Inputs.create(config, facts),
            threshold=own.threshold,
            positive_weights=weights,
            label_smoothing=own.label_smoothing,
            l2=own.l2,
            auxiliary_weight=own.auxiliary_weight,
        )

    def _losses(self, logits: jax.Array, targets: jax.Array, smoothing: float = 0.0) -> jax.Array:
        """The mean over the classes of each image's losses, float32 [b]."""
        targets = targets.astype(jnp.float32) * (1 - smoothing) + smoothing / 2
        weights = jnp.asarray(self.positive_weights) if self.positive_weights else None
        return binary_cross_entropy(logits, targets, positive_weights=weights).mean(-1)

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        augment_key, dropout_key = jax.random.split(key)
        if "labels" not in batch:
            raise UserError("The data have no sets of labels; is this a data set with several?")
        batch = self.inputs.train(batch, augment_key)
        targets = batch["label_probs"] if "label_probs" in batch else batch["labels"]
        outputs, model_state = base.apply_train(
            self.model, params, model_state, batch["image"], dropout_key
        )
        outputs = base.heads(outputs)
        means: dict[str, Ratio] = {}
        for name, logits in outputs.items():
            losses = self._losses(logits, targets, self.label_smoothing)
            share = 1.0 if name == "logits" else self.auxiliary_weight
            means[name] = masked_ratio(losses, jnp.ones_like(losses), batch["valid"]).scaled(share)
        guess = self._there(outputs["logits"])
        sums = {"labels": LabelCounts.of(guess, targets >= 0.5, batch["valid"])}
        return Objective(means, penalty(params, l2=self.l2)), (model_state, sums)

    def _there(self, logits: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(logits.astype(jnp.float32)) >= self.threshold

    def logits(self, variables: Variables, image: jax.Array) -> jax.Array:
        """float32 [b, k] for uint8 images."""
        return base.apply_eval(self.model, variables, self.inputs.evaluate(image))

    def features(self, variables: Variables, image: jax.Array) -> jax.Array:
        """What the last layer is given, float32 [b, f]."""
        return base.features_before_classifier(self.model, variables, self.inputs.evaluate(image))

    def parts(self, variables: Variables) -> dict[str, Variables]:
        return {"model": variables, "backbone": variables}

    def predict(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """`probabilities` [b, k] and `labels` bool [b, k]."""
        logits = self.logits(variables, batch["image"])
        return {"probabilities": jax.nn.sigmoid(logits), "labels": self._there(logits)}

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        logits = self.logits(variables, batch["image"])
        truth, valid = batch["labels"], batch["valid"]
        sums = {
            "loss": Mean.of(self._losses(logits, truth), valid),
            "labels": LabelCounts.of(self._there(logits), truth, valid),
        }
        return sums, {"score": logits, "truth": truth}

    def score(self, rows: Mapping[str, Any]) -> dict[str, float]:
        """`ap/<class>` over all images, and their mean over the classes that occur."""
        found = average_precision(rows["score"], rows["truth"])
        occurring = found[~np.isnan(found)]
        mean = float(occurring.mean()) if occurring.size else float("nan")
        named = {f"ap/{name}": float(ap) for name, ap in zip(self.class_names, found)}
        return {"map": mean, **named}
