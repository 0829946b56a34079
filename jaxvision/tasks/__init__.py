"""Tasks: what is optimised, as pure functions over (parameters, batch, key).

A task is a frozen dataclass with the methods of `Task`. `create(config, ...)` makes the configured
one; a new task is one file here and one line in `_TASKS`.
"""

import inspect
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvision import models
from jaxvision.errors import UserError, unknown
from jaxvision.tasks import classification, segmentation
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.views import Views

_TASKS: dict[str, Any] = {
    "classification": classification.Classification,
    "segmentation": segmentation.Segmentation,
}


class Task(Protocol):
    """What the loop needs of a task. All but `visualize` is pure and runs on the device."""

    model: nn.Module
    class_names: tuple[str, ...]
    main_metric: str

    def init(self, key: Any, image_shape: tuple[int, int, int]) -> dict[str, Any]:
        """Fresh variables of the model for images [h, w, c]."""

    def loss(self, params: Any, model_state: Any, batch: Any, key: Any) -> tuple[Any, Any]:
        """(scalar, (new model_state, metric accumulators)) of a training batch."""

    def gradients(self, state: Any, batch: Any, key: Any) -> tuple[Any, Any]:
        """(gradient tree, (new model_state, accumulators)). Override for several losses (GAN)."""

    def predict(self, variables: Any, image: Any) -> dict[str, Any]:
        """Outputs for uint8 images [b, h, w, c], as predictions are written to files."""

    def metrics(self, variables: Any, batch: Any) -> dict[str, Any]:
        """Accumulators of an evaluation batch; rows with `valid` False do not count."""

    def visualize(self, image: np.ndarray, outputs: Any, batch: Any) -> np.ndarray:
        """A uint8 [h, w, 3] picture of predictions beside the truth, if `batch` holds any."""


def annotations(task: str) -> tuple[str, ...]:
    """What a task needs of a record beside the image.

    Raises:
      UserError: no such task.
    """
    return _class_of(task).annotations


def _class_of(task: str) -> Any:
    if task not in _TASKS:
        raise unknown("task", task, _TASKS)
    return _TASKS[task]


def create(config: Any, class_names: tuple[str, ...]) -> Task:
    """The configured task with its model.

    Args:
      config: a `ConfigDict`; its package is not imported here, as a task can be made without.
      class_names: of the data.

    Raises:
      UserError: unknown task, model or augmentation, or class weights that do not fit.
    """
    from jaxvision.config import loss_terms

    count = len(class_names)
    if count < 2:
        raise UserError(f"A task needs at least two classes; the data have {count}.")
    weights = tuple(config.loss.class_weights)
    if weights and len(weights) != count:
        raise UserError(f"loss.class_weights has {len(weights)} values for {count} classes.")
    loss_terms(config)
    chosen = _CHOSEN[config.task](config, class_names)
    model = models.create(
        config.model.name,
        count,
        **config.model.options.to_dict(),
        **({} if config.model.dtype == "float32" else {"dtype": jnp.dtype(config.model.dtype)}),
    )
    return _class_of(config.task)(
        model=model,
        class_names=class_names,
        inputs=Inputs(
            tuple(config.data.mean), tuple(config.data.std), tuple(config.data.augment), count
        ).checked(),
        label_smoothing=config.loss.label_smoothing,
        class_weights=weights,
        l1=config.loss.l1,
        l2=config.loss.l2,
        criterion=config.loss.name,
        auxiliary_weight=config.loss.auxiliary_weight,
        **chosen,
    )


def _of_classification(config: Any, class_names: tuple[str, ...]) -> dict[str, Any]:
    """What this task alone is configured with."""
    if config.loss.name != "cross_entropy" and config.loss.label_smoothing:
        raise UserError("loss.label_smoothing is for loss.name='cross_entropy'; set it to 0.")
    teacher, wanted = None, config.distillation
    if wanted.model:
        if not wanted.weights:
            raise UserError("distillation.model needs distillation.weights: a trained teacher.")
        network = models.create(wanted.model, len(class_names), **wanted.options.to_dict())
        teacher = classification.Teacher(network, wanted.kind, wanted.weight, wanted.temperature)
    return {"reconstruction_weight": config.loss.reconstruction_weight, "teacher": teacher}


def _of_segmentation(config: Any, class_names: tuple[str, ...]) -> dict[str, Any]:
    """What this task alone is configured with."""
    from jaxvision.config import loss_terms

    if config.distillation.model:
        raise UserError("distillation.model is for task='classification'.")
    terms = {**segmentation.PIXEL_LOSSES, **segmentation.REGION_LOSSES}
    options = config.loss.options.to_dict()
    for term, arguments in options.items():
        if term not in loss_terms(config):
            raise unknown("loss in loss.options", term, loss_terms(config))
        signature = inspect.signature(terms[term]).parameters.values()
        known = [p.name for p in signature if p.kind is p.KEYWORD_ONLY]
        for argument in arguments:
            if argument not in known:
                raise unknown(f"option of loss {term!r}", argument, known)
    void = config.eval.void_class
    if void and void != class_names[-1]:
        raise UserError(f"eval.void_class={void!r} is not the last class, {class_names[-1]!r}.")
    if min(config.eval.scales, default=0) <= 0:
        raise UserError(f"eval.scales are positive numbers, got {list(config.eval.scales)}.")
    return {
        "loss_options": options,
        "hard_share": config.loss.hard_share,
        "hard_threshold": config.loss.hard_threshold,
        "views": Views(
            tuple(config.eval.scales),
            config.eval.flip,
            tuple(config.eval.window),
            config.eval.overlap,
        ),
        "void_class": void,
        "void_counts": config.eval.void == "false_positives",
        "boundary": config.eval.boundary,
    }


_CHOSEN = {"classification": _of_classification, "segmentation": _of_segmentation}
