"""A trained network that a task keeps beside its own, as a collection of the state.

It is never trained, and stored with a run, so that nothing else is needed to go on with the run or
to evaluate it.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jaxvision import pretrained
from jaxvision.tasks.base import Reader, Variables


def fresh(collection: str, model: Any, size: int, key: Array, shape: tuple[int, ...]) -> Variables:
    """`{collection: variables}` of a network for images [h, w, c].

    Args:
      collection: of the state.
      model: the network.
      size: side in pixels of what it is shown; 0 shows images as they are.
      key: of its random values.
      shape: of the images.
    """
    sides = (size, size) if size else shape[:2]
    image = jnp.zeros((1, *sides, shape[-1]))
    return {collection: dict(model.init(key, image, train=False))}


def filled(
    collection: str, name: str, model: Any, weights: str, variables: Variables, read: Reader
) -> Variables:
    """`variables` with the kept network's trained ones.

    Args:
      collection: of the state.
      name: of the network in the registry.
      model: the network.
      weights: see `read`.
      variables: of the task.
      read: see `jaxvision.train.weights.read`.

    Raises:
      UserError: its weights cannot be had or do not fit.
    """
    own = pretrained.load_into(name, model, read(weights, name), variables[collection])
    return {**variables, collection: own}
