"""LPIPS: how unlike two images look, by maps of a trained network.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018,
https://arxiv.org/abs/1801.03924. The numbers are those of the package `lpips`, version 0.1 of its
weights: maps of a network of ImageNet, of unit length at each place, whose squared differences are
weighed by channel. Its file holds these weights alone; the network has its own.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision import models, pretrained
from jaxvision.errors import UserError, unknown
from jaxvision.inspect.features import taps
from jaxvision.tasks.base import Reader, Variables

# What its authors subtract from images in -1..1, and divide them by.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class _Network(NamedTuple):
    name: str
    layers: tuple[str, ...]
    channels: tuple[int, ...]


NETWORKS = {
    "alex": _Network(
        "alexnet",
        tuple(f"features_{i}" for i in (0, 3, 6, 8, 10)),
        (64, 192, 384, 256, 256),
    ),
    "vgg": _Network(
        "vgg16",
        tuple(f"features_{i}" for i in (2, 7, 14, 21, 28)),
        (64, 128, 256, 512, 512),
    ),
    "squeeze": _Network(
        "squeezenet1_1",
        tuple(f"features_{i}" for i in (0, 4, 7, 9, 10, 11, 12)),
        (64, 128, 256, 384, 384, 512, 512),
    ),
}


@dataclass(frozen=True)
class Lpips:
    """A network and where it is looked at; its weights are given to `distance`.

    Attributes:
      net: "alex", "vgg" or "squeeze".
      model: the network, without its classifier.
    """

    net: str
    model: nn.Module

    @classmethod
    def create(cls, net: str) -> Self:
        """By name.

        Raises:
          UserError: no such network.
        """
        if net not in NETWORKS:
            raise unknown("network of LPIPS", net, NETWORKS)
        return cls(net, models.create(NETWORKS[net].name, features_only=True))

    def init(self, key: Array, size: int = 64) -> Variables:
        """Fresh variables: of the network, and the channels' weights."""
        image = jnp.zeros((1, size, size, 3))
        channels = NETWORKS[self.net].channels
        weights = {f"lin{i}": jnp.ones((count,)) for i, count in enumerate(channels)}
        return {"network": dict(self.model.init(key, image, train=False)), "weights": weights}

    def load(
        self, weights: str, network_weights: str, variables: Variables, read: Reader
    ) -> Variables:
        """The trained variables.

        Args:
          weights: a file of the package: `alex.pth`, `vgg.pth`, `squeeze.pth`.
          network_weights: of the network, as `model.weights`.
          variables: fresh ones.
          read: reads weights.

        Raises:
          UserError: they cannot be had or do not fit.
        """
        name = NETWORKS[self.net].name
        found = read(weights, name).state
        trained = {}
        for lin, fresh in variables["weights"].items():
            value = found.get(f"{lin}.model.1.weight")
            if value is None or value.size != fresh.size:
                raise UserError(
                    f"{weights} is no file of LPIPS for {self.net!r}: {lin}.model.1.weight of "
                    f"{fresh.size} channels is missing."
                )
            trained[lin] = jnp.asarray(value, jnp.float32).reshape(-1)
        own = read(network_weights, name)
        network = pretrained.load_into(name, self.model, own, variables["network"])
        return {"network": network, "weights": trained}

    def distance(
        self, variables: Variables, a: Float[Array, "b h w 3"], b: Float[Array, "b h w 3"]
    ) -> Float[Array, " b"]:
        """Of pairs of images in 0..1."""
        layers = NETWORKS[self.net].layers
        found = [taps(self.model, variables["network"], _normalised(x), layers) for x in (a, b)]
        total = jnp.zeros(len(a))
        for index, layer in enumerate(layers):
            first, second = (_unit(nn.relu(maps[layer]).astype(jnp.float32)) for maps in found)
            weight = variables["weights"][f"lin{index}"]
            total = total + jnp.mean(jnp.square(first - second) @ weight, axis=(1, 2))
        return total


def _normalised(images: Array) -> Array:
    return (2 * images - 1 - jnp.asarray(_SHIFT)) / jnp.asarray(_SCALE)


def _unit(maps: Array) -> Array:
    """Of length one at each place."""
    squares = jnp.square(maps).sum(-1, keepdims=True)
    # The gradient of a root at 0 is none.
    length = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    return maps / (length + 1e-10)
