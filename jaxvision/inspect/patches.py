"""The places of a data set that excite a channel most, and the pixels that these depend on.

Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2013, figure 2,
https://arxiv.org/abs/1311.2901
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int, UInt8

from jaxvision.errors import UserError
from jaxvision.inspect.features import activations, check_channels, tapped

_CHUNK = 16  # images with a hidden row that are computed at a time


@struct.dataclass
class Strongest:
    """The images that excite some channels most, strongest first.

    Attributes:
      values: float32 [channels, n]; -inf where there were fewer images.
      images: int32 [channels, n], their indices; -1 where there were fewer.
      places: int32 [channels, n, 2], (row, column) of the map.
    """

    values: Any
    images: Any
    places: Any

    @classmethod
    def none(cls, channels: int, count: int) -> "Strongest":
        """Before any image has been seen."""
        return cls(
            jnp.full((channels, count), -jnp.inf),
            jnp.full((channels, count), -1, jnp.int32),
            jnp.zeros((channels, count, 2), jnp.int32),
        )

    def updated(self, maps: Float[Array, "b i j k"], index: Int[Array, " b"]) -> "Strongest":
        """After more images, of which each counts with its strongest place.

        Args:
          maps: of these channels.
          index: of the images; negative is padding.
        """
        batch, _, width, channels = maps.shape
        flat = maps.reshape(batch, -1, channels).astype(jnp.float32)
        where = flat.argmax(1)
        values = jnp.where(index[:, None] >= 0, flat.max(1), -jnp.inf).T
        places = jnp.stack([where // width, where % width], -1).astype(jnp.int32).swapaxes(0, 1)
        images = jnp.broadcast_to(jnp.where(index >= 0, index, -1), values.shape)
        images = images.astype(jnp.int32)
        joined = jnp.concatenate([self.values, values], 1)
        best, chosen = jax.lax.top_k(joined, self.values.shape[1])
        pick = lambda a, b: jnp.take_along_axis(jnp.concatenate([a, b], 1), chosen, 1)  # noqa: E731
        rows = pick(self.places[..., 0], places[..., 0])
        columns = pick(self.places[..., 1], places[..., 1])
        return Strongest(best, pick(self.images, images), jnp.stack([rows, columns], -1))


def top_patches(
    module: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[tuple[Float[Array, "b h w c"], Int[np.ndarray, " b"]]],
    layer: str,
    channels: Sequence[int],
    count: int = 9,
) -> Strongest:
    """The images of a data set that excite channels most, and where.

    Args:
      module: called as `module(images, train=False)`.
      variables: of it.
      batches: normalised images of one size, and their indices (negative is padding).
      layer: path of a module that puts out a map.
      channels: of the layer.
      count: images for each channel.

    Raises:
      UserError: there is no such layer or channel, or it puts out no map.
    """
    chosen = np.asarray(channels, np.int32)

    @jax.jit
    def update(best: Strongest, variables: Any, images: Array, index: Array) -> Strongest:
        maps = tapped(module, variables, images, layer)[1]
        if maps.ndim != 4:
            raise UserError(f"Layer {layer!r} puts out {maps.shape[1:]}, which is no map.")
        check_channels(channels, maps.shape[-1])
        return best.updated(maps[..., chosen], index)

    best = Strongest.none(len(channels), count)
    for images, index in batches:
        best = update(best, variables, jnp.asarray(images), jnp.asarray(index))
    return jax.device_get(best)


def influence(
    module: nn.Module, variables: Mapping[str, Any], image_shape: Sequence[int], layer: str
) -> tuple[Int[np.ndarray, "i 2"], Int[np.ndarray, "j 2"]]:
    """The pixels on which the rows and columns of a layer's map depend: [first, last + 1].

    Found by experiment: a row of the image is set to NaN, and what becomes NaN depends on it, by
    whatever operations. That is computed on the CPU, where convolutions have no neighbours in
    common but those of the definition.

    Args:
      module: called as `module(images, train=False)`.
      variables: of it.
      image_shape: [h, w, c].
      layer: path of a module that puts out a map.

    Raises:
      UserError: there is no such layer, or it puts out no map.
    """
    cpu = jax.local_devices(backend="cpu")[0]
    variables = jax.device_put(jax.device_get(variables), cpu)
    height, width = image_shape[:2]

    @jax.jit
    def touched(variables: Any, hidden: Array) -> tuple[Array, Array]:
        def one(mask: Array) -> Array:
            image = jnp.where(mask[..., None], jnp.nan, jnp.zeros(tuple(image_shape)))
            return jnp.isnan(activations(module, variables, image, layer)).any(-1)

        found = jax.lax.map(one, hidden)
        return found.any(2), found.any(1)

    def along(axis: int) -> np.ndarray:
        size = image_shape[axis]
        parts = []
        for start in range(0, size, _CHUNK):
            lines = np.arange(start, start + _CHUNK)
            shape = (-1, height, 1) if axis == 0 else (-1, 1, width)
            place = (np.arange(size)[None] == lines[:, None]).reshape(shape)
            hidden = np.broadcast_to(place, (_CHUNK, height, width))
            parts.append(np.asarray(touched(variables, jax.device_put(hidden, cpu))[axis]))
        depends = np.concatenate(parts)[:size]  # [pixels, places]
        first = depends.argmax(0)
        last = size - depends[::-1].argmax(0)
        return np.stack([first, np.where(depends.any(0), last, first)], -1)

    return along(0), along(1)


def cut(
    image: UInt8[np.ndarray, "h w c"],
    place: Sequence[int],
    fields: tuple[Int[np.ndarray, "i 2"], Int[np.ndarray, "j 2"]],
) -> UInt8[np.ndarray, "p q c"]:
    """The pixels that a place of a map depends on; grey where its field leaves the image.

    Args:
      image: as the network saw it, before normalisation.
      place: (row, column) of the map.
      fields: what `influence` gives.
    """
    ranges, margins = [], [(0, 0)] * 3
    for axis, (at, field) in enumerate(zip(place, fields)):
        start, stop = (int(v) for v in field[int(at)])
        missing = int((field[:, 1] - field[:, 0]).max()) - (stop - start)
        before = start == 0
        margins[axis] = (missing, 0) if before else (0, missing)
        ranges.append(slice(start, stop))
    return np.pad(image[ranges[0], ranges[1]], margins, constant_values=128)
