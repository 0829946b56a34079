"""What a network asks of its images: a smallest size, a multiple, the middle of a larger one."""

from collections.abc import Sequence
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxvision.errors import UserError

Maps = TypeVar("Maps", Array, np.ndarray)


def check_size(image: Float[Array, "b h w c"], smallest: int, network: str) -> None:
    """Refuses images that a network's strides and poolings would leave nothing of.

    Args:
      image: what the network was called with.
      smallest: how many rows and columns it needs.
      network: its name, the subject of the message.

    Raises:
      UserError: the images are smaller.
    """
    rows, columns = image.shape[1:3]
    if min(rows, columns) < smallest:
        raise UserError(
            f"{network} takes images of {smallest}x{smallest} or more; not of {rows}x{columns}."
        )


def pad_to_multiple(image: Float[Array, "b *size c"], multiple: int) -> Float[Array, "b *padded c"]:
    """Images or volumes with zeros behind each axis, so that its length is a multiple."""
    margins = [(0, -side % multiple) for side in image.shape[1:-1]]
    return jnp.pad(image, ((0, 0), *margins, (0, 0)))


def center_crop(maps: Maps, size: Sequence[int]) -> Maps:
    """The middle, [b, *size, ...], of maps [b, h, w, ...] or volumes, which may be of NumPy.

    Networks without padding make maps smaller, by as much on either side.
    """
    for axis, length in enumerate(size, start=1):
        start = (maps.shape[axis] - length) // 2
        maps = maps[(slice(None),) * axis + (slice(start, start + length),)]
    return maps


def check_multiple(image: Float[Array, "b h w c"], multiple: int, network: str) -> None:
    """Refuses images that a network would not give back in their own size.

    Args:
      image: what the network was called with.
      multiple: of which its sides must be.
      network: its name, the subject of the message.

    Raises:
      UserError: a side is no multiple.
    """
    rows, columns = image.shape[1:3]
    if rows % multiple or columns % multiple:
        raise UserError(
            f"{network} takes images whose sides are multiples of {multiple}; not of "
            f"{rows}x{columns}. Pad or resize them."
        )
