"""Maps in which each pixel is of one segment: an object, or a class of stuff.

Kirillov et al., Panoptic Feature Pyramid Networks, 2019, https://arxiv.org/abs/1901.02446; how
masks and classes become segments is in section 6 of their Panoptic Segmentation, 2019,
https://arxiv.org/abs/1801.00868. Reference: mmdetection's `HeuristicFusionHead`.

Segments are numbered the same in each image: 0 is void, then come the `n` objects, then the classes
of stuff. So what a number stands for is known without looking at the map.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from jaxvision.ops.bits import unpack
from jaxvision.ops.forms import vary_alike
from jaxvision.ops.resize import resize
from jaxvision.ops.roi import paste_mask

_ROWS = 16  # that have the logits of all classes in memory


def fuse(
    masks: Float[Array, "b n m m"],
    boxes: Float[Array, "b n 4"],
    valid: Bool[Array, "b n"],
    logits: Float[Array, "b i j k"],
    size: tuple[int, int],
    overlap: float = 0.5,
    stuff_area: int = 4096,
) -> Int[Array, "b h w"]:
    """The segments of images of which objects are found, and the class of each place.

    Beside the map and a mask nothing is in memory at the image's size.

    Args:
      masks: how likely each cell of a box is its object's, 0 to 1; from the surest object on.
      boxes: in pixels of the image.
      valid: which objects there are.
      logits: of each class of stuff, and last of all things as one; on a coarser grid.
      size: (height, width) of the image.
      overlap: an object more than this part of which is covered by surer ones is left out.
      stuff_area: pixels that a class of stuff must have, else they are void.
    """
    numbers = jax.vmap(partial(lay, size=size, overlap=overlap))(masks, boxes, valid)
    stuff = logits.shape[-1] - 1
    classes = likeliest(logits, size)
    return jax.vmap(partial(add_stuff, objects=masks.shape[1], stuff=stuff, least=stuff_area))(
        numbers, classes
    )


def lay(
    masks: Float[Array, "n m m"],
    boxes: Float[Array, "n 4"],
    valid: Bool[Array, " n"],
    size: tuple[int, int],
    overlap: float = 0.5,
) -> Int[Array, "h w"]:
    """The number of the object that each pixel is of, 0 of none.

    One after another they take the pixels that are free; see `fuse`.
    """

    def add(index: Array, numbers: Array) -> Array:
        mask = paste_mask(masks[index], boxes[index], size)
        free = mask & (numbers == 0)
        area, left = mask.sum(), free.sum()
        kept = valid[index] & (area - left <= overlap * area)
        return jnp.where(free & kept, index + 1, numbers)

    return lax.fori_loop(0, _end(valid), add, _nothing(valid, size))


def number_masks(
    masks: UInt8[Array, "n h p"], valid: Bool[Array, " n"], width: int
) -> Int[Array, "h w"]:
    """The number of the first mask that each pixel is in, 0 of none.

    Args:
      masks: as bits, see `jaxvision.ops.bits`.
      valid: which there are.
      width: of the image, in pixels.
    """

    def add(index: Array, numbers: Array) -> Array:
        free = unpack(masks[index], width) & (numbers == 0) & valid[index]
        return jnp.where(free, index + 1, numbers)

    return lax.fori_loop(0, _end(valid), add, _nothing(valid, (masks.shape[1], width)))


def _end(valid: Bool[Array, " n"]) -> Int[Array, ""]:
    """How many objects are looked at, the last of which is valid."""
    return jnp.max(jnp.where(valid, jnp.arange(1, len(valid) + 1), 0))


def _nothing(valid: Bool[Array, " n"], size: tuple[int, int]) -> Int[Array, "h w"]:
    return vary_alike(jnp.zeros(size, jnp.int32), valid)[0]


def likeliest(logits: Float[Array, "b i j k"], size: tuple[int, int]) -> Int[Array, "b h w"]:
    """The class of the highest logit at each pixel of a map that is enlarged to `size`.

    Bilinear interpolation; only some rows at a time have the logits of all classes.
    """
    height, width = size
    places = np.maximum((np.arange(height) + 0.5) * (logits.shape[1] / height) - 0.5, 0)
    places = np.pad(places, (0, -height % _ROWS), mode="edge").reshape(-1, _ROWS)
    upper = places.astype(np.int32)
    lower, share = np.minimum(upper + 1, logits.shape[1] - 1), (places - upper)[..., None, None]

    def rows(part: tuple[Array, Array, Array]) -> Array:
        upper, lower, share = part
        band = logits[:, upper] * (1 - share) + logits[:, lower] * share
        return resize(band, (_ROWS, width)).argmax(-1)

    bands = lax.map(rows, (upper, lower, share.astype(logits.dtype)))  # [n, b, _ROWS, w]
    return jnp.moveaxis(bands, 0, 1).reshape(logits.shape[0], -1, width)[:, :height]


def add_stuff(
    numbers: Int[Array, "h w"],
    classes: Shaped[Array, "h w"],
    objects: int,
    stuff: int,
    least: int = 1,
) -> Int[Array, "h w"]:
    """The map with segments of stuff where there is no object.

    Args:
      numbers: of objects, 0 where there is none.
      classes: of each pixel; from `stuff` on it is none of stuff.
      objects: the highest number that an object may have.
      stuff: how many classes there are.
      least: pixels that a segment must have, else they are void.
    """
    free = (numbers == 0) & (classes >= 0) & (classes < stuff)
    place = jnp.where(free, classes, stuff).astype(jnp.int32)
    large = jnp.bincount(place.ravel(), length=stuff + 1) >= least
    large = large.at[stuff].set(False)
    return jnp.where(large[place], objects + 1 + place, numbers)
