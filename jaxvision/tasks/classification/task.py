"""Image classification: one class an image; softmax cross-entropy, multiclass hinge or margin loss.

Networks with auxiliary heads return a dict in training: `logits`, and `aux...` whose losses are
added with a weight. One with a distillation token (DeiT) returns `logits` and `distilled`; one that
decodes the image again (CapsNet) takes the label too, and returns `logits` and `reconstruction`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvision import losses, models, pretrained
from jaxvision.errors import UserError
from jaxvision.losses import Objective, Ratio, cross_entropy, masked_ratio, penalty
from jaxvision.metrics import ConfusionMatrix, Mean, TopK
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Metric, Sums, Variables
from jaxvision.tasks.inputs import Inputs

if TYPE_CHECKING:
    from ml_collections import ConfigDict


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
        """The loss of each sample, float32 [b]."""
        logits = jax.lax.stop_gradient(base.apply_eval(self.model, variables, image))
        if self.kind == "hard":
            return cross_entropy(student, logits.argmax(-1))[0]
        targets = jax.nn.softmax(logits / self.temperature)
        losses, _ = cross_entropy(student, targets, temperature=self.temperature)
        entropy = -jnp.sum(targets * jnp.log(jnp.maximum(targets, 1e-30)), -1)
        return (losses - entropy) * self.temperature**2  # Kullback-Leibler


@dataclass(frozen=True)
class Classification(base.Task):
    """Batches carry `image`, `label` and `valid`.

    Attributes:
      criterion: (logits, targets, ...) to (loss, weight) of each sample.
      criterion_options: for training: label smoothing. Evaluation reports the plain loss.
      takes_label: whether the network is given the label in training (CapsNet).
    """

    annotations: ClassVar[tuple[str, ...]] = ("label",)
    metrics: ClassVar[dict[str, Metric]] = {
        "loss": Metric("lower", fatal=True),
        "accuracy": Metric("higher"),
        "top5_accuracy": Metric("higher"),
    }
    main_metric: ClassVar[str] = "accuracy"
    training_collections: ClassVar[tuple[str, ...]] = ("teacher",)

    model: nn.Module
    class_names: tuple[str, ...]
    inputs: Inputs = field(default_factory=Inputs)
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    l1: float = 0.0
    l2: float = 0.0
    criterion: str | Callable[..., Any] = "cross_entropy"
    auxiliary_weight: float = 0.3
    reconstruction_weight: float = 5e-4
    teacher: Teacher | None = None
    takes_label: bool = False

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        own, names = config.classification, facts.class_names
        weights = base.checked_class_weights("classification", own.class_weights, names)
        if not callable(own.loss):
            losses.PER_SAMPLE[own.loss]  # an unknown one is met here
        teacher, wanted = None, own.distillation
        if wanted.model:
            network = models.create(wanted.model, len(names), **wanted.options.to_dict())
            teacher = Teacher(network, wanted.kind, wanted.weight, wanted.temperature)
        return cls(
            model=base.create_network(config, len(names)),
            class_names=names,
            inputs=Inputs.create(config, facts),
            label_smoothing=own.label_smoothing,
            class_weights=weights,
            l1=own.l1,
            l2=own.l2,
            criterion=own.loss,
            auxiliary_weight=own.auxiliary_weight,
            reconstruction_weight=own.reconstruction_weight,
            teacher=teacher,
            takes_label="label" in models.variant(config.model.name).inputs,
        )

    def init(self, key: jax.Array, spec: base.Spec) -> Variables:
        image = jnp.zeros((1, *spec["image"].shape[1:]))
        variables = dict(self.model.init(key, image, train=False))
        if self.teacher is not None:
            variables["teacher"] = dict(self.teacher.model.init(key, image, train=False))
        return variables

    def names_weights(self, config: "ConfigDict") -> bool:
        return self.teacher is not None or super().names_weights(config)

    def load_weights(self, config: "ConfigDict", variables: Variables, read: base.Reader):
        variables = dict(variables)
        teacher = variables.pop("teacher", None)
        variables = base.load_network(config, self.model, variables, read)
        if self.teacher is not None:
            wanted = config.classification.distillation
            weights = read(wanted.weights, wanted.model)
            variables["teacher"] = pretrained.load_into(
                wanted.model, self.teacher.model, weights, teacher
            )
        return variables

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        augment_key, dropout_key = jax.random.split(key)
        if "label" not in batch:
            raise UserError("The data have no labels; is this a data set for classification?")
        batch = self.inputs.train(batch, augment_key)
        image, valid = batch["image"], batch["valid"]
        targets = batch["label_probs"] if "label_probs" in batch else batch["label"]
        outputs, model_state = base.apply_train(
            self.model,
            params,
            model_state,
            image,
            dropout_key,
            **({"label": targets} if self.takes_label else {}),
        )
        outputs = base.heads(outputs)
        reconstruction = outputs.pop("reconstruction", None)
        distilled = outputs.pop("distilled", outputs["logits"])
        if self.teacher is None:
            outputs["logits"] = (outputs["logits"] + distilled) / 2
        logits = outputs["logits"]
        means: dict[str, Ratio] = {}
        for name, output in outputs.items():
            values, weights = self._losses(output, targets, self.label_smoothing)
            share = 1.0 if name == "logits" else self.auxiliary_weight
            means[name] = masked_ratio(values, weights, valid).scaled(share)
        if reconstruction is not None:
            squares = jnp.square((reconstruction - image).astype(jnp.float32)).sum((1, 2, 3))
            mean = masked_ratio(squares, jnp.ones_like(squares), valid)
            means["reconstruction"] = mean.scaled(self.reconstruction_weight)
        if self.teacher is not None:
            taught = self.teacher.loss(model_state["teacher"], image, distilled)
            mean = masked_ratio(taught, jnp.ones_like(taught), valid)
            means = {name: one.scaled(1 - self.teacher.weight) for name, one in means.items()}
            means["distilled"] = mean.scaled(self.teacher.weight)
        labels = targets.argmax(-1) if targets.ndim == 2 else targets
        sums = {"accuracy": TopK.of(logits, labels, valid, k=1)}
        objective = Objective(means, penalty(params, l1=self.l1, l2=self.l2))
        return objective, (model_state, sums)

    def _losses(self, logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0):
        """(loss, weight) of each sample."""
        criterion = self.criterion
        function = criterion if callable(criterion) else losses.PER_SAMPLE[criterion]
        more = {"label_smoothing": label_smoothing} if label_smoothing else {}
        return function(logits, targets, class_weights=self.class_weights or None, **more)

    def logits(self, variables: Variables, image: jax.Array) -> jax.Array:
        """float32 [b, k] for uint8 images."""
        return base.apply_eval(self.model, variables, self.inputs.evaluate(image))

    def class_probabilities(self, variables: Variables, image: jax.Array) -> jax.Array:
        """float32 [b, k]."""
        return jax.nn.softmax(self.logits(variables, image))

    def predict(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """`probabilities` [b, k] and `label` [b]."""
        logits = self.logits(variables, batch["image"])
        return {"probabilities": jax.nn.softmax(logits), "label": logits.argmax(-1)}

    def features(self, variables: Variables, image: jax.Array) -> jax.Array:
        """What the last layer is given, float32 [b, f] (Krizhevsky et al. 2012, section 6.1).

        Raises:
          UserError: the network does not give it.
        """
        return base.features_before_classifier(self.model, variables, self.inputs.evaluate(image))

    def parts(self, variables: Variables) -> dict[str, Variables]:
        return {"model": variables, "backbone": variables}

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        logits = self.logits(variables, batch["image"])
        valid = batch["valid"]
        values, weights = self._losses(logits, batch["label"])
        weights = jnp.where(valid, weights, 0.0)
        mean = Mean(total=jnp.sum(jnp.where(valid, values, 0.0)), weight=jnp.sum(weights))
        sums = {"loss": mean, "accuracy": TopK.of(logits, batch["label"], valid, k=1)}
        if len(self.class_names) > 5:
            sums["top5_accuracy"] = TopK.of(logits, batch["label"], valid, k=5)
        probabilities = jax.nn.softmax(logits)
        of_label = jnp.take_along_axis(probabilities, batch["label"][:, None], -1)[:, 0]
        rows = {
            "label": batch["label"],
            "found": logits.argmax(-1),
            "probability": probabilities.max(-1),
            "probability_of_label": of_label,
        }
        return sums, rows

    def scores(self) -> tuple[str, ...]:
        return ()  # rows are for the report; all metrics are sums

    def confusion(self, variables: Variables, batch: Batch) -> ConfusionMatrix:
        """Records by class and predicted class."""
        guess = self.logits(variables, batch["image"]).argmax(-1)
        true = jnp.where(batch["valid"], batch["label"], -1)
        return ConfusionMatrix.of(guess, true, len(self.class_names), self.class_names)
