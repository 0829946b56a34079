"""A trained network with what it needs: configuration, facts of its data, task, variables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from jaxvision import models, pretrained, tasks
from jaxvision.data import transforms
from jaxvision.data.facts import OF_LABELS, Facts
from jaxvision.errors import UserError
from jaxvision.interop.published import Published, hub_file
from jaxvision.tasks import configuration
from jaxvision.tasks.base import Spec, Task, image_spec
from jaxvision.train import compilation, weights
from jaxvision.train import workdir as stored
from jaxvision.train.step import init_variables


@dataclass(frozen=True)
class Run:
    """A trained network; see `open`, `published` and `with_weights`.

    Attributes:
      config: its configuration.
      facts: of the data that it was trained on.
      folder: of the run; None for weights that come from elsewhere.
      step: of the checkpoint; -1 for weights that come from elsewhere.
      weights: where there is no folder.
      programs: jitted functions of it, by what they do, so that none is compiled twice.
    """

    config: ConfigDict
    facts: Facts
    folder: Path | None = None
    step: int = -1
    weights: str = ""
    programs: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    _variables: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def task(self) -> Task:
        """The configured task."""
        compilation.use_cache(self.config.compilation_cache)
        return tasks.create(self.config, self.facts)

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.task.model

    @cached_property
    def prepare(self) -> Any:
        """Brings a record's image to what the network takes: `data.eval_transforms`."""
        return transforms.compose(self.config.data.eval_transforms)

    @property
    def variables(self) -> dict[str, Any]:
        """The network's variables; averaged ones where the run kept them.

        Raises:
          UserError: the checkpoint is damaged, or the weights do not fit.
        """
        return self.variables_for(() if self.folder else self.image_shape)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of an image as large as those of the training, prepared as for prediction.

        Of weights from elsewhere, as those that the network was published for. A run that was
        trained on crops alone has images as large as the largest.
        """
        shape = self.task.made or models.variant(self.config.model.name).input_shape
        if self.folder is not None:
            shape = _seen(weights.run_spec(self.folder, self.step))
        return self.prepared_shape((*shape[:-1], self.config.data.channels))

    def prepared_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape [h, w, c] in which the network sees an image of `shape`."""
        if len(shape) != 3:
            return tuple(shape)
        record = {"image": np.zeros(shape, np.uint8)}
        return self.prepare(record, np.random.default_rng(0))["image"].shape

    @cached_property
    def one_size(self) -> bool:
        """Whether the preparation brings photographs of all sizes to one."""
        channels = self.config.data.channels
        sizes = ((320, 480), (480, 320), (300, 300))
        return len({self.prepared_shape((*size, channels)) for size in sizes}) == 1

    def variables_for(self, image_shape: Sequence[int]) -> dict[str, Any]:
        """The variables for images [h, w, c]; those of a run fit images of any size.

        Raises:
          UserError: see `variables`.
        """
        shape = () if self.folder else tuple(int(side) for side in image_shape)
        if shape not in self._variables:
            with jax.ensure_compile_time_eval():  # also where a function is being traced
                self._variables[shape] = self._read(shape)
        return self._variables[shape]

    def _read(self, shape: tuple[int, ...]) -> dict[str, Any]:
        if self.folder is not None:
            return weights.run_variables(self.folder, self.task, self.step, self.config.seed)
        name, fresh = self.config.model.name, self.shapes_for(shape)
        for variables in self._variables.values():
            if jax.tree.map(lambda x: x.shape, variables) == jax.tree.map(lambda x: x.shape, fresh):
                return variables
        found = weights.read(self.weights, name)
        return self.task.with_weights(name, found, fresh, weights.read)

    def shapes_for(self, image_shape: Sequence[int]) -> dict[str, Any]:
        """The variables of a fresh network for images [h, w, c], as shapes."""
        spec = image_spec(tuple(int(side) for side in image_shape))
        fresh = jax.eval_shape(lambda: init_variables(self.task, self.config.seed, spec))
        return {k: v for k, v in fresh.items() if k not in self.task.training_collections}

    def predict(self, images: Sequence[Any], **options: Any) -> list[Any]:
        """What the network says of images: a `Prediction` each, in their order.

        Args:
          images: files, or uint8 arrays [h, w, c] (or [h, w] where images are grey) of any sizes.
          options: `pad_to`, see `predicting.predict_files`.

        Raises:
          UserError: an image cannot be read, or the task does not predict.
        """
        from jaxvision.runs.predicting import predict

        return predict(self, images, **options)

    def evaluate(
        self, split: str = "", output: Path | None = None
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """(metrics by plain name, sums) of a split of its data, `data.test` by default.

        Args:
          split: see above.
          output: a folder for pictures of the evaluation, of tasks that draw them.

        Raises:
          UserError: the data are missing or wrong.
        """
        from jaxvision.runs.evaluating import evaluate

        return evaluate(self, split, output)

    def sample(self, count: int, seed: int = 0, **options: Any) -> np.ndarray:
        """New images, uint8 [count, h, w, c]; the first ones are the same for any count.

        Args:
          count: how many.
          seed: decides them.
          options: `labels`, `settings`, see `sampling.sample`.

        Raises:
          UserError: the task does not make images, or does not understand a setting.
        """
        from jaxvision.runs.sampling import sample

        return sample(self, count, seed, **options)


def _seen(spec: Spec) -> tuple[int, ...]:
    """The shape of a training batch's images, without its first axis."""
    if "image" in spec:
        return spec["image"].shape[1:]
    views = (one.shape[2:] for name, one in spec.items() if name.startswith("views_"))
    return max(views, key=math.prod)


def stored_config(folder: Path, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """The configuration of the run in a folder, with `overrides` as on the command line.

    Raises:
      UserError: there is no run, or an override is wrong.
    """
    config = stored.stored_config(folder)
    for key, value in (overrides or {}).items():
        configuration.override(config, key, value)
    if overrides:
        configuration.validate(config)
    return config


def open(
    folder: str | Path,
    checkpoint: str = weights.TESTED,
    overrides: Mapping[str, Any] | None = None,
) -> Run:
    """The run in a folder.

    Args:
      folder: the workdir that it was trained in.
      checkpoint: `tested`, `best`, `latest` or a step; see `train.weights.step_of`.
      overrides: of its configuration, as on the command line.

    Raises:
      UserError: there is no run or no such checkpoint, or an override is wrong.
    """
    folder = Path(folder)
    config = stored_config(folder, overrides)
    facts = stored.stored_facts(folder, config)
    with weights.checkpoints_of(folder) as checkpoints:
        step = weights.step_of(checkpoints, config, checkpoint)
    return Run(config, facts, folder, step)


def with_weights(config: ConfigDict, weights: str) -> Run:
    """A configured network with weights from elsewhere: a file, a tag or a Hub name.

    Its classes are `data.classes`; evaluating finds them in the data where there are none.
    """
    return Run(config, Facts(class_names=tuple(config.data.classes)), weights=weights)


def published(
    model: str, weights: str = "default", overrides: Mapping[str, Any] | None = None
) -> Run:
    """A network with published weights, its classes and its preparation of images.

    What nothing is known of (a file of one's own) is prepared as is usual, see `pretrained.usual`.

    Raises:
      UserError: no such network, weights or key; or it is for volumes.
    """
    entry = models.variant(model)
    if len(entry.input_shape) != 3:
        raise UserError(f"{model} is for volumes; give --config and --weights.")
    found = pretrained.read(weights, model)
    about = found.published
    if about is None:
        count = pretrained.classes_in(entry, found.state)
        if "classes" in entry.ends and not count:
            raise UserError(f"{found.where} has no {entry.classifier[0]!r}; it is not of {model}.")
        about = pretrained.usual(model, count)
    config = tasks.default_config(tasks.for_role(entry.role))
    config.model.name = model
    config.data.channels = entry.input_shape[-1]
    config.data.classes = pretrained.class_names(about)
    if about.tokenizer and "data.tokenizer" not in (overrides or {}):
        config.data.tokenizer = str(_beside(about, about.tokenizer, Path(found.where)))
    if about.palette and "data.palette" not in (overrides or {}):
        config.data.palette = str(_beside(about, about.palette, Path(found.where)))
    config.data.mean, config.data.std = about.mean, about.std
    config.data.eval_transforms = pretrained.preparation(about)
    for key, value in (overrides or {}).items():
        configuration.override(config, key, value)
    configuration.validate(config)
    known = OF_LABELS.get(about.labels, Facts())
    return Run(config, replace(known, class_names=tuple(config.data.classes)), weights=weights)


def _beside(about: Published, name: str, weights: Path) -> Path:
    """What says what published weights' tokens or colours are: beside them, or on the Hub.

    Raises:
      UserError: it cannot be had.
    """
    beside = weights.parent / name
    return beside if beside.is_file() else hub_file(about.hub, names=(name,))
