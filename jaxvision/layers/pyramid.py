"""What decoders ask of an encoder: its maps by stride."""

import math
from collections.abc import Sequence
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError

# Of maps that are smaller, rounding and borders hide the stride.
_LEGIBLE = 4


def doubled(count: int, first: int = 1, last: int | None = None) -> tuple[int, ...]:
    """Strides of `count` maps: from `first` each twice that of the one before, up to `last`."""
    strides = (first * 2**level for level in range(count))
    return tuple(stride if last is None else min(stride, last) for stride in strides)


def feature_strides(
    encoder: nn.Module, image: Float[Array, "b h w c"], maps: Sequence[Float[Array, "b _ _ _"]]
) -> tuple[int, ...]:
    """The stride of each of an encoder's maps, to the nearest power of two.

    Shapes do not tell strides: 1x1 may be half of 3x3 or a quarter. So an encoder declares them, as
    its attribute `feature_strides`; of one that does not they are read off maps of four rows or
    columns or more.

    Args:
      encoder: what gave the maps.
      image: what it saw.
      maps: what it gave, finest first.

    Raises:
      UserError: they are not declared, and a map is too small to tell.
    """
    strides = getattr(encoder, "feature_strides", None)
    if strides is None:
        axis = 1 if image.shape[1] >= image.shape[2] else 2  # the longer side tells more
        sides = [feature.shape[axis] for feature in maps]
        if min(sides) < _LEGIBLE:
            raise UserError(
                f"{type(encoder).__name__} does not declare the strides of its maps, and of images "
                f"of {image.shape[1]}x{image.shape[2]} they cannot be read off maps as small as "
                f"{min(sides)}: give it an attribute feature_strides, such as (4, 8, 16, 32), or "
                "larger images."
            )
        strides = [image.shape[axis] / side for side in sides]
    return tuple(2 ** round(math.log2(stride)) for stride in strides)


def by_stride(
    encoder: nn.Module, image: Float[Array, "b h w c"], maps: Sequence[Float[Array, "b _ _ _"]]
) -> dict[int, Any]:
    """Feature maps by stride, a power of two; of several of one stride the deepest.

    Args: see `feature_strides`.
    """
    return dict(zip(feature_strides(encoder, image, maps), maps, strict=True))


def required(levels: dict[int, Any], strides: Sequence[int], network: str) -> list[Any]:
    """The maps of the given strides.

    Args:
      levels: see `by_stride`.
      strides: what is wanted.
      network: the subject of the message.

    Raises:
      UserError: the encoder has no map of one of them.
    """
    for stride in strides:
        if stride not in levels:
            raise UserError(
                f"{network} needs an encoder with a map of stride {stride}; this one has strides "
                f"{', '.join(map(str, levels))}."
            )
    return [levels[stride] for stride in strides]
