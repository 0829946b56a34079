"""Semantic segmentation: one class a pixel or voxel; 255 = ignore.

The loss is a sum of terms: cross-entropy, perhaps of the hardest pixels alone, focal, and losses of
regions. Networks with auxiliary heads return a dict in training: `logits`, and `aux...` whose
losses are added with a weight.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvision import losses, models
from jaxvision.errors import UserError, unknown
from jaxvision.layers.images import center_crop
from jaxvision.losses import Objective, Ratio, hard_examples, masked_ratio, penalty
from jaxvision.metrics import BoundaryF1, ConfusionMatrix, Mean
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Metric, Sums, Variables
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.segmentation.views import Views

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclass(frozen=True)
class Segmentation(base.Task):
    """Batches carry `image`, `segmentation` and `valid`.

    Attributes:
      criterion: terms of the loss, joined by "+", or a function of pixels.
      loss_options: keyword arguments of the terms, by name.
      one_output: whether the network gives the logit of the second of two classes alone; that of
        the first is 0, so that the softmax of both is the sigmoid of the one.
      hard_share: the part of pixels that cross-entropy and focal keep at least; 0 keeps all.
      hard_threshold: pixels whose class has less probability are kept too.
      auxiliary_weight: of the losses of auxiliary heads.
      views: what evaluation and prediction average over.
      void_class: a class of the network's that metrics take for void: the last one, or "".
      void_counts: whether what is predicted on void is a false positive.
      boundary: tolerance of the boundary F1 as a part of the diagonal; 0 leaves it out.
      encoder_place: of the encoder in the parameter tree, "" if the network has none.
    """

    annotations: ClassVar[tuple[str, ...]] = ("segmentation",)
    metrics: ClassVar[dict[str, Metric]] = {
        "loss": Metric("lower", fatal=True),
        "miou": Metric("higher"),
        "pixel_accuracy": Metric("higher"),
        "mean_class_accuracy": Metric("higher"),
        "fwiou": Metric("higher"),
        "mdice": Metric("higher"),
        "boundary_f1": Metric("higher"),
        "iou/*": Metric("higher"),
    }
    main_metric: ClassVar[str] = "miou"
    any_size: ClassVar[bool] = True

    model: nn.Module
    class_names: tuple[str, ...]
    inputs: Inputs = field(default_factory=Inputs)
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    l1: float = 0.0
    l2: float = 0.0
    criterion: str = "cross_entropy"
    loss_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    one_output: bool = False
    hard_share: float = 0.0
    hard_threshold: float = 0.7
    auxiliary_weight: float = 0.4
    views: Views = field(default_factory=Views)
    void_class: str = ""
    void_counts: bool = False
    boundary: float = 0.0
    encoder_place: str = ""

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        own, names = config.segmentation, facts.class_names
        if len(names) == 1:
            raise UserError(
                f"data.classes has one class, {names[0]!r}. Name what is not of it, too, as in "
                f"data.classes=('background', {names[0]!r}); with segmentation.one_output=true the "
                "network has one output for the two."
            )
        if own.one_output and len(names) != 2:
            raise UserError(
                f"segmentation.one_output is for two classes; the data have {len(names)}."
            )
        weights = base.checked_class_weights("segmentation", own.class_weights, names)
        options = own.loss_options.to_dict()
        check_terms(own.loss, options)
        if own.void_class and own.void_class != names[-1]:
            raise UserError(
                f"segmentation.void_class={own.void_class!r} is not the last class, {names[-1]!r}."
            )
        place = ""
        if "encoder" in models.variant(config.model.name).options:
            _, place = models.encoder_of(config.model.name, config.model.options.to_dict())
        return cls(
            model=base.create_network(config, 1 if own.one_output else len(names)),
            class_names=names,
            inputs=Inputs.create(config, facts),
            label_smoothing=own.label_smoothing,
            class_weights=weights,
            l1=own.l1,
            l2=own.l2,
            criterion=own.loss,
            loss_options=options,
            one_output=own.one_output,
            hard_share=own.hard_share,
            hard_threshold=own.hard_threshold,
            auxiliary_weight=own.auxiliary_weight,
            views=Views(tuple(own.scales), own.flip, tuple(own.window), own.overlap),
            void_class=own.void_class,
            void_counts=own.void == "false_positives",
            boundary=own.boundary,
            encoder_place=place,
        )

    def notes(self, config: "ConfigDict") -> list[str]:
        parts = config.optimizer.accumulate
        whole = [str(t) for t in terms_of(self.criterion) if t in losses.REGIONS]
        whole += ["hard pixels"] * bool(self.hard_share)
        if parts == 1 or not whole:
            return []
        what = " and ".join(whole)
        return [f"optimizer.accumulate={parts}: {what} of each micro-batch, not of the batch"]

    def _truth(self, batch: Batch, size: Sequence[int]) -> tuple[jax.Array, jax.Array]:
        """(class indices, which count), each [b, *size]: what the logits are compared with."""
        if "segmentation" not in batch:
            raise UserError("The data have no masks; is this a data set for segmentation?")
        truth = center_crop(batch["segmentation"].astype(jnp.int32), size)
        rows = batch["valid"].reshape(-1, *[1] * len(size))
        return truth, (truth < len(self.class_names)) & rows

    def _pixel_loss(self, name: Any, logits: jax.Array, targets: jax.Array, smoothing: float):
        """(loss, weight) of each pixel."""
        weights = self.class_weights or None
        if callable(name):
            return name(logits, targets, class_weights=weights)
        more: dict[str, Any] = dict(self.loss_options.get(name, {}))
        if name == "cross_entropy":
            more["label_smoothing"] = smoothing
        return losses.PER_SAMPLE[name](logits, targets, class_weights=weights, **more)

    def _criterion(
        self, logits: jax.Array, truth: jax.Array, counted: jax.Array
    ) -> dict[str, Ratio]:
        """The configured terms."""
        targets, terms = jnp.where(counted, truth, 0), {}
        kept = counted
        if self.hard_share:
            nll, _ = losses.cross_entropy(logits, targets)
            kept = hard_examples(nll, counted, share=self.hard_share, threshold=self.hard_threshold)
        for name in terms_of(self.criterion):
            if callable(name) or name in losses.PER_SAMPLE:
                values, weights = self._pixel_loss(name, logits, targets, self.label_smoothing)
                terms[str(name)] = masked_ratio(values, weights, kept)
            else:
                more = self.loss_options.get(name, {})
                value = losses.REGIONS[name](logits, targets, counted, **more)
                terms[name] = Ratio(value, counted.any().astype(jnp.float32))
        return terms

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        augment_key, dropout_key = jax.random.split(key)
        batch = self.inputs.train(batch, augment_key)
        outputs, model_state = base.apply_train(
            self.model, params, model_state, batch["image"], dropout_key
        )
        outputs = {name: self._of_classes(one) for name, one in base.heads(outputs).items()}
        means: dict[str, Ratio] = {}
        for name, logits in outputs.items():
            share = 1.0 if name == "logits" else self.auxiliary_weight
            terms = self._criterion(logits, *self._truth(batch, logits.shape[1:-1]))
            means |= {f"{name}/{term}": mean.scaled(share) for term, mean in terms.items()}
        logits = outputs["logits"]
        truth, counted = self._truth(batch, logits.shape[1:-1])
        sums = {"pixel_accuracy": Mean.of(logits.argmax(-1) == truth, counted)}
        objective = Objective(means, penalty(params, l1=self.l1, l2=self.l2))
        return objective, (model_state, sums)

    def logits(self, variables: Any, image: jax.Array) -> jax.Array:
        """float32 [b, h, w, k] for uint8 images, or the logarithm of several views' mean."""
        apply = partial(self._apply, variables)
        return self.views.logits(apply, self.inputs.evaluate(image))

    def _apply(self, variables: Variables, image: jax.Array) -> jax.Array:
        """Logits of each class for normalised images."""
        return self._of_classes(base.apply_eval(self.model, variables, image))

    def _of_classes(self, output: jax.Array) -> jax.Array:
        if not self.one_output:
            return output
        return jnp.concatenate([jnp.zeros_like(output), output], axis=-1)

    def pixel_probabilities(self, variables: Variables, image: jax.Array) -> jax.Array:
        """float32 [b, h, w, k] for uint8 images; a network without padding gives fewer pixels."""
        return jax.nn.softmax(self.logits(variables, image))

    def predict(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """`segmentation` i32 [b, h, w] and `probability` f32 [b, h, w] of the class found.

        What a network without padding would leave out at the border is seen mirrored.
        """
        apply = partial(self._apply, variables)
        image = self.inputs.evaluate(batch["image"])
        probabilities = jax.nn.softmax(self.views.covering(apply, image).logits(apply, image))
        return {
            "segmentation": probabilities.argmax(-1).astype(jnp.int32),
            "probability": probabilities.max(-1),
        }

    def parts(self, variables: Variables) -> dict[str, Variables]:
        if not self.encoder_place:
            return {"model": variables}
        inner = {
            kind: tree[self.encoder_place]
            for kind, tree in variables.items()
            if self.encoder_place in tree
        }
        return {"model": variables, "encoder": inner, "backbone": inner}

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        logits = self.logits(variables, batch["image"])
        truth, counted = self._truth(batch, logits.shape[1:-1])
        values, weights = self._pixel_loss(
            "cross_entropy", logits, jnp.where(counted, truth, 0), 0.0
        )
        weights = jnp.where(counted, weights, 0.0)
        mean = Mean(total=jnp.sum(jnp.where(counted, values, 0.0)), weight=jnp.sum(weights))
        guess, true = logits.argmax(-1), self._without_padding(batch, truth)
        sums: dict[str, Any] = {"loss": mean, "confusion": self._confusion(guess, true)}
        if self.boundary:
            count = len(self._counted_classes())
            sums["boundary_f1"] = BoundaryF1.of(guess, true, count, self.boundary)
        places = tuple(range(1, truth.ndim))
        right = ((guess == truth) & counted).sum(places) / jnp.maximum(counted.sum(places), 1)
        return sums, {"right": right, "known": counted.any(places)}

    def scores(self) -> tuple[str, ...]:
        return ()  # rows are for the report; all metrics are sums

    def confusion(self, variables: Variables, batch: Batch) -> ConfusionMatrix:
        """Pixels by class and predicted class."""
        logits = self.logits(variables, batch["image"])
        truth, _ = self._truth(batch, logits.shape[1:-1])
        return self._confusion(logits.argmax(-1), self._without_padding(batch, truth))

    def _confusion(self, guess: jax.Array, true: jax.Array) -> ConfusionMatrix:
        names = self._counted_classes()
        return ConfusionMatrix.of(guess, true, len(names), names, self.void_counts)

    def _counted_classes(self) -> tuple[str, ...]:
        return self.class_names[:-1] if self.void_class else self.class_names

    @staticmethod
    def _without_padding(batch: Batch, truth: jax.Array) -> jax.Array:
        """The truth with -1 in rows that only fill the batch: void pixels are another matter."""
        rows = batch["valid"].reshape(-1, *[1] * (truth.ndim - 1))
        return jnp.where(rows, truth, -1)


def terms_of(criterion: str | Callable[..., Any]) -> list[Any]:
    """The terms of the loss: names joined by "+", or one function."""
    return [criterion] if callable(criterion) else criterion.split("+")


def check_terms(criterion: str | Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Checks that the terms exist and take their options.

    Raises:
      UserError: naming the term or the option and its neighbours.
    """
    terms = terms_of(criterion)
    functions = {**losses.PER_SAMPLE, **losses.REGIONS}
    for term in terms:
        if not callable(term) and term not in functions:
            raise unknown("segmentation.loss", term, functions)
    for term, arguments in options.items():
        if term not in terms:
            raise unknown("loss in segmentation.loss_options", term, [str(t) for t in terms])
        signature = inspect.signature(functions[term]).parameters.values()
        valid = [p.name for p in signature if p.kind is p.KEYWORD_ONLY]
        for argument in arguments:
            if argument not in valid:
                raise unknown(f"option of loss {term!r}", argument, valid)
