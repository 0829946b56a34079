"""A network that is looked into: its variables, its layers, its classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvision import models
from jaxvision.errors import UserError, unknown
from jaxvision.inspect import features
from jaxvision.runs.run import Run


@dataclass(frozen=True)
class Network:
    """The network of a run with its variables, for images of one shape.

    Attributes:
      run: whose network it is.
      of_task: the variables of the run's task.
      model: the module, called as `model(images, train=False)`; see `Task.looked_at`.
      variables: its parameters and statistics.
      shapes: what its modules put out for one image, by path; "" is the network itself.
    """

    run: Run
    of_task: Mapping[str, Any]
    model: nn.Module
    variables: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, run: Run, image_shape: Sequence[int]) -> "Network":
        """The network for images [h, w, c].

        Raises:
          UserError: it takes no images, or its weights cannot be had or do not fit.
        """
        name = run.config.model.name
        first = models.variant(name).inputs[0]
        if first != "image":
            raise UserError(f"{name} takes no image but a {first}; there is nothing to look at.")
        shape = tuple(int(side) for side in image_shape)
        of_task = run.variables_for(shape)
        model, variables = run.task.looked_at(of_task)
        shapes = features.outputs(model, variables, shape)
        return cls(run, of_task, model, variables, shapes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the channels of its output stand for; () where they are no classes."""
        names = tuple(self.run.task.class_names)
        classes = hasattr(self.run.task, "logits") and self.shapes.get("", ())[-1:] == (len(names),)
        return names if classes else ()

    def normalized(self, images: Any) -> jax.Array:
        """uint8 images, or one image, as the network takes them."""
        batch = jnp.asarray(images)
        evaluate = self.run.task.inputs.evaluate
        return evaluate(batch) if batch.ndim == 4 else evaluate(batch[None])[0]

    def layer(self, path: str | None, first: bool = False) -> str:
        """The path, or that of the first or last map.

        Raises:
          UserError: there is no such layer.
        """
        if path is None:
            return features.default_layer(self.shapes, first)
        if path not in self.shapes:
            raise unknown("layer", path, [name for name in self.shapes if name])
        return path

    def channels(self, text: str | None, layer: str, otherwise: int) -> list[int]:
        """Channels of a layer: those that the text lists, or the first `otherwise` ones.

        Raises:
          UserError: they are no numbers, or there are no such channels.
        """
        count = self.shapes[layer][-1]
        parts = text.split(",") if text else map(str, range(min(otherwise, count)))
        try:
            found = [int(part) for part in parts]
        except ValueError:
            raise UserError(f"--channels is numbers like 0,3,17; not {text!r}.") from None
        features.check_channels(found, count)
        return found

    def label(self, text: str | None) -> int | None:
        """The index of a class that is given by name or index; None if none is given.

        Raises:
          UserError: there is no such class.
        """
        names = self.class_names
        if text is None:
            return None
        if text in names:
            return names.index(text)
        if text.isdigit() and int(text) < len(names):
            return int(text)
        raise unknown("class", text, names)

    def output_name(self, index: int) -> str:
        """The class, or the number, of a channel of the network's output."""
        return self.class_names[index] if self.class_names else f"output {index}"
