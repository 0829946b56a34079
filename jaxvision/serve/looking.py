"""Where a network looks in an image: attention of its last block, or Grad-CAM."""

from typing import Any

import jax
import numpy as np

from jaxvision.errors import UserError
from jaxvision.inspect import attention, draw, features
from jaxvision.runs import Prediction, Run
from jaxvision.runs.network import Network
from jaxvision.tasks.shown import Overlay, heat


class Looking:
    """Shows where a network looks; see `looking_of`.

    Attributes:
      title: what is shown.
      names: of the classes that can be asked for, () where there is no such choice.
    """

    title: str
    names: tuple[str, ...] = ()

    def __init__(self, run: Run, shape: tuple[int, ...]):
        self._run = run
        self._network = Network.of(run, shape)
        self._size = shape

    def overlay(self, prediction: Prediction, label: int | None = None) -> Overlay:
        """Where it looked, over the photograph.

        Args:
          prediction: of the photograph.
          label: the class of which evidence is shown; the likeliest one by default.
        """
        shape = prediction.network_image.shape
        if shape != self._size:
            self._network, self._size = Network.of(self._run, shape), shape
        values, name = self._seen(prediction.network_image, label)
        title = f"{self.title}, {name}" if name else self.title
        return Overlay(title, heat(prediction, values), grey=True)

    def _seen(self, image: np.ndarray, label: int | None) -> tuple[np.ndarray, str]:
        """(values from 0 to 1 of places of an image, of which class they are)."""
        raise NotImplementedError


class Attention(Looking):
    """What the class token of the last block attends to, or the patches do, averaged over heads."""

    title = "Attention"

    def __init__(self, run: Run, shape: tuple[int, ...]):
        super().__init__(run, shape)
        image = jax.ShapeDtypeStruct(shape, np.uint8)
        jax.eval_shape(self._weights, self._network.variables, image)  # refuses what has none
        self._apply = jax.jit(self._weights)

    def _weights(self, variables: Any, image: Any) -> jax.Array:
        network = self._network
        maps = attention.attention_maps(network.model, variables, network.normalized(image))
        return attention.over_patches(maps[-1], network.model, image.shape).mean(0)

    def _seen(self, image: np.ndarray, label: int | None) -> tuple[np.ndarray, str]:
        return draw.stretched(jax.device_get(self._apply(self._network.variables, image))), ""


class GradCam(Looking):
    """Where the last map speaks for a class: Selvaraju et al. 2016."""

    title = "Grad-CAM"

    def __init__(self, run: Run, shape: tuple[int, ...]):
        super().__init__(run, shape)
        if len(self._network.shapes.get("", ())) != 1 or not self._network.class_names:
            raise UserError("Grad-CAM is of classifiers.")
        self.names = self._network.class_names
        image = jax.ShapeDtypeStruct(shape, np.uint8)
        jax.eval_shape(self._evidence, self._network.variables, image, -1)
        self._apply = jax.jit(self._evidence)

    def _evidence(self, variables: Any, image: Any, label: Any) -> tuple[jax.Array, jax.Array]:
        network = self._network
        image = network.normalized(image)
        logits = network.model.apply(variables, image[None], train=False)[0]
        chosen = jax.numpy.where(label < 0, logits.argmax(), label)
        layer = network.layer(None)
        return chosen, features.grad_cam(network.model, variables, image, layer, chosen)

    def _seen(self, image: np.ndarray, label: int | None) -> tuple[np.ndarray, str]:
        asked = -1 if label is None else label
        chosen, values = jax.device_get(self._apply(self._network.variables, image, asked))
        return np.asarray(values), self.names[int(chosen)]


def looking_of(run: Run, shape: tuple[int, ...]) -> Looking | None:
    """What shows where a network looks that says something of the whole image; None without.

    Args:
      run: the trained network.
      shape: of a prepared image, [h, w, c].
    """
    whole = any(hasattr(run.task, name) for name in ("features", "class_probabilities"))
    for kind in (Attention, GradCam) if whole and len(shape) == 3 else ():
        try:
            return kind(run, shape)
        except UserError:
            continue  # this network has no such thing
    return None
