"""What the loop asks of a task, and the defaults that a task with one network and one loss needs.

A task is a frozen dataclass that inherits from `Task`. Everything but `score` is pure and runs on
the device. What only some tasks can do are further methods, for which commands ask by
`jaxvision.tasks.require`:

| method | gives |
|---|---|
| `predict(variables, batch, key)` | outputs for images, [b, ...] each |
| `pictured(variables, batch, key)` | what pictures at evaluations show, where not `predict`'s |
| `latents`, `generate`, `sample` | new images; see `jaxvision/tasks/sampling.py` |
| `inpaint(variables, images, masks, keys, ...)` | images made anew where masks are True |
| `logits(variables, image)` | classes of each image, float32 [b, k], or of each pixel |
| `class_probabilities(variables, image)` | of each image, float32 [b, k] |
| `pixel_probabilities(variables, image)` | of each pixel, float32 [b, h, w, k]; for tiles |
| `join_tiles(outputs, corners, tile, size)` | `predict`'s of tiles as of the image, on the host |
| `object_rows(batch, found)` | rows for `score`, of objects found by whatever it was |
| `stages(variables, image)` | maps, proposals and objects, as a detector comes to them |
| `object_attention(variables, image, count)` | objects, and what is looked at for each |
| `features(variables, image)` | a vector for each image, float32 [b, f] |
| `confusion(variables, batch)` | `metrics.ConfusionMatrix` |
| `parts(variables)` | variables of networks in it that others may start from, by name |
"""

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvision import models, pretrained
from jaxvision.errors import UserError
from jaxvision.losses import Objective
from jaxvision.tasks.inputs import Inputs

if TYPE_CHECKING:
    from ml_collections import ConfigDict

Batch = dict[str, jax.Array]
Variables = dict[str, Any]
Spec = Mapping[str, jax.ShapeDtypeStruct]  # a batch as shapes
Sums = dict[str, Any]  # accumulators of `jaxvision.metrics` by name
Loss = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array | Objective, Any]]


@dataclass(frozen=True)
class Metric:
    """What a task declares of a metric.

    Attributes:
      better: which values are; "neither" cannot choose a checkpoint.
      fatal: a run stops when it is not finite in training.
    """

    better: Literal["higher", "lower", "neither"]
    fatal: bool = False


class Update(Protocol):
    """How the loop changes a group of parameters; it is given to `Task.step`.

    Attributes:
      total: steps of the whole training, for what follows a schedule.
    """

    total: int

    def gradients(
        self, group: str, loss: Loss, state: Any, batch: Batch, key: jax.Array
    ) -> tuple[Any, tuple[Any, Sums]]:
        """(gradient, (new model_state, sums)) of `loss(params, model_state, batch, key)`.

        The loss takes the group's parameters. It sees the whole batch, or micro-batches one after
        another where the group accumulates. It is an `Objective`, whose gradient is the same either
        way and whose value is added to the sums as `loss`; or a number, which is averaged.
        """

    def __call__(self, group: str, gradient: Any, state: Any) -> Any:
        """The state after the group's optimiser has used the gradient."""

    def when(
        self, due: jax.Array, group: str, loss: Loss, state: Any, batch: Batch, key: jax.Array
    ) -> tuple[Any, Sums]:
        """(the state after an update by this loss, its sums) where one is due.

        Where none is, nothing is computed: the state is as it was, and the sums weigh nothing. It
        is for what is learnt lazily, once in several steps.
        """


# (weights, network's name, preferred part) to `pretrained.Weights`; see `jaxvision.train.weights`.
Reader = Callable[..., pretrained.Weights]


class Task(Protocol):
    """The contract. A class that inherits from it gets the defaults.

    Attributes:
      annotations: kinds of annotations (`jaxvision.data.annotations`) that batches must carry.
      unused: parts of these annotations, by their keys in records, that batches do not carry.
      groups: of parameters with an optimiser each, by name: the top-level names of the parameter
        tree that a group owns; () owns all.
      metrics: by name, or shell pattern of names, in the order in which they are shown.
      main_metric: names the best checkpoint.
      training_collections: of the state, which evaluation and export leave out.
      model: the network, or the main one.
      inputs: what is done to images before the network sees them.
      class_names: of the data; () where a task has no classes.
      any_size: whether what it says of images is of their pixels, so that images of any size are as
        good as those of the training's.
    """

    annotations: ClassVar[tuple[str, ...]] = ()
    unused: ClassVar[tuple[str, ...]] = ()
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {"main": ()}
    metrics: ClassVar[Mapping[str, Metric]] = {}
    main_metric: ClassVar[str] = "loss"
    training_collections: ClassVar[tuple[str, ...]] = ()
    any_size: ClassVar[bool] = False
    model: nn.Module
    inputs: Inputs
    class_names: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """What `predict` takes of a batch beside `image` and `valid`, by its keys there."""
        return ()

    @property
    def made(self) -> tuple[int, ...]:
        """The shape [h, w, c] of images that the network makes of something else; or ()."""
        return ()

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        """The configured task.

        Args:
          config: of the run.
          facts: of its data, a `jaxvision.data.facts.Facts`.

        Raises:
          UserError: what does not exist or does not fit.
        """
        raise NotImplementedError

    @classmethod
    def unused_by(cls, config: "ConfigDict") -> tuple[str, ...]:
        """`unused`, of the configured network."""
        return cls.unused

    def init(self, key: jax.Array, spec: Spec) -> Variables:
        """Fresh variables for batches of these shapes: `params` and other collections."""
        image = jnp.zeros((1, *spec["image"].shape[1:]))
        return dict(self.model.init(key, image, train=False))

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        """(objective, (new model_state, sums)) of a training batch; see `Update.gradients`."""
        raise NotImplementedError

    def step(self, state: Any, batch: Batch, key: jax.Array, update: Update) -> tuple[Any, Sums]:
        """(new state, sums) of a training batch; the loop counts the step."""
        (group,) = self.groups
        gradient, (model_state, sums) = update.gradients(group, self.loss, state, batch, key)
        return update(group, gradient, state.replace(model_state=model_state)), sums

    def evaluate(
        self, variables: Variables, batch: Batch, key: jax.Array
    ) -> tuple[Sums, dict[str, jax.Array]]:
        """(sums, rows) of an evaluation batch.

        Sums are added up on the device. Rows are arrays [b, ...] that go to the host, for what is
        no sum. Neither may count records that are not `valid`; rows of those are dropped.
        """
        raise NotImplementedError

    def score(self, rows: Mapping[str, Any]) -> dict[str, float]:
        """Metrics of the rows of all records, NumPy arrays [n, ...]."""
        return {}

    def scores(self) -> tuple[str, ...]:
        """The names that `score` surely gives: all that are declared, by default."""
        return tuple(name for name in self.metrics if not set(name) & set("*?["))

    def notes(self, config: "ConfigDict") -> list[str]:
        """What a user should be told when a training begins; a line each."""
        return []

    def names_weights(self, config: "ConfigDict") -> bool:
        """Whether the configuration names weights to start from."""
        return bool(config.model.weights or config.model.encoder_weights)

    def load_weights(self, config: "ConfigDict", variables: Variables, read: Reader) -> Variables:
        """The variables to start from: fresh ones with what the configured weights hold.

        Raises:
          UserError: weights cannot be had or do not fit.
        """
        return load_network(config, self.model, variables, read)

    def of_network(self, variables: Variables) -> Variables:
        """The main network's own variables among the task's: what is exported."""
        return variables

    def looked_at(self, variables: Variables) -> tuple[nn.Module, Variables]:
        """The network that pictures look into, `module(images, train=False)`, and its variables."""
        return self.model, variables

    def with_weights(
        self, name: str, weights: pretrained.Weights, variables: Variables, read: Reader
    ) -> Variables:
        """The variables to evaluate and predict with, of weights of the main network alone.

        Args:
          name: of the network.
          weights: that it is to have.
          variables: of the task, as shapes.
          read: for what else the task needs.

        Raises:
          UserError: weights cannot be had or do not fit.
        """
        return pretrained.load_into(name, self.model, weights, variables)


def load_network(
    config: "ConfigDict", model: nn.Module, variables: Variables, read: Reader
) -> Variables:
    """The variables of the network `model.name` with what `model.*weights` say.

    Raises:
      UserError: weights cannot be had or do not fit.
    """
    wanted = config.model
    if wanted.encoder_weights:
        encoder, place = models.encoder_of(wanted.name, wanted.options.to_dict())
        variables = pretrained.fill_encoder(
            encoder,
            place,
            read(wanted.encoder_weights, encoder, "encoder"),
            variables,
            getattr(model, "encoder", None),
        )
    if wanted.weights:
        variables = pretrained.load_into(
            wanted.name,
            model,
            read(wanted.weights, wanted.name),
            variables,
            fine_tune=True,
            reset_classifier=wanted.reset_classifier,
        )
    return variables


def create_network(config: "ConfigDict", num_classes: int | None = None, **more: Any) -> nn.Module:
    """The network `model.name` with its options and compute type.

    Raises:
      UserError: no such network or option.
    """
    dtype = {} if config.model.dtype == "float32" else {"dtype": jnp.dtype(config.model.dtype)}
    options = {**config.model.options.to_dict(), **dtype, **more}
    if num_classes is not None:
        options["num_classes"] = num_classes
    return models.create(config.model.name, **options)


def apply_train(
    model: Any, params: Any, model_state: Any, image: jax.Array, key: jax.Array, **inputs: Any
) -> tuple[Any, Any]:
    """(output in training mode, new model_state); `inputs` are the model's beside the image."""
    output, updated = model.apply(
        {"params": params, **model_state},
        image,
        train=True,
        **inputs,
        mutable=list(model_state),
        rngs={"dropout": key},
    )
    return output, {**model_state, **updated}


def heads(output: Any) -> dict[str, jax.Array]:
    """What a network gives in training by name; `logits` alone where it gives one array."""
    return dict(output) if isinstance(output, dict) else {"logits": output}


def apply_eval(model: Any, variables: Variables, image: jax.Array) -> jax.Array:
    """float32 output in evaluation mode."""
    return model.apply(variables, image, train=False).astype(jnp.float32)


def features_before_classifier(model: Any, variables: Variables, image: jax.Array) -> jax.Array:
    """What a network's last layer is given, float32 [b, f].

    Raises:
      UserError: the network does not give it.
    """
    found = apply_eval(model.clone(num_classes=0), variables, image)
    if found.ndim != 2 or found.shape[-1] == 0:
        raise UserError(f"{type(model).__name__} does not give its features.")
    return found


def image_spec(shape: tuple[int, ...]) -> Spec:
    """A batch of images of this shape, [h, w, c]."""
    return {"image": jax.ShapeDtypeStruct((1, *shape), jnp.uint8)}


def moving_average(average: Any, new: Any, decay: jax.Array | float) -> Any:
    """`decay * average + (1 - decay) * new`, leaf by leaf; integers are taken as they are.

    What is equal stays so to the bit: what does not change has no rounding errors to gather.
    """

    def of(old: jax.Array, now: jax.Array) -> jax.Array:
        if not jnp.issubdtype(now.dtype, jnp.floating):
            return now
        return jnp.where(old == now, now, decay * old + (1 - decay) * now).astype(now.dtype)

    return jax.tree.map(of, average, new)


def cosine(start: float, end: float, part: jax.Array | float) -> jax.Array:
    """From `start` to `end` along half a cosine, at `part` (0 to 1) of the way."""
    return end + (start - end) * (1 + jnp.cos(jnp.pi * jnp.clip(part, 0, 1))) / 2


def metric_of(task: Any, name: str) -> Metric | None:
    """What a task declares of the metric; None if nothing."""
    if name in task.metrics:
        return task.metrics[name]
    matching = (m for pattern, m in task.metrics.items() if fnmatch.fnmatch(name, pattern))
    return next(matching, None)


def checked_class_weights(
    group: str, weights: Any, class_names: tuple[str, ...]
) -> tuple[float, ...]:
    """The weights of classes, which are at least two.

    Raises:
      UserError: there are fewer classes, or another number of weights.
    """
    count = len(class_names)
    if count < 2:
        raise UserError(f"A task needs at least two classes; the data have {count}.")
    if weights and len(weights) != count:
        raise UserError(f"{group}.class_weights has {len(weights)} values for {count} classes.")
    return tuple(weights)
