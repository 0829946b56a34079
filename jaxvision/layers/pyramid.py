"""What decoders ask of an encoder: its maps by stride."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Array, Float

from jaxvision.errors import UserError


def by_stride(
    image: Float[Array, "b h w c"], maps: Sequence[Float[Array, "b _ _ _"]]
) -> dict[int, Any]:
    """Feature maps by stride, a power of two; of several of one stride the deepest.

    Args:
      image: what the encoder saw.
      maps: what it gave, finest first.
    """
    axis = 1 if image.shape[1] >= image.shape[2] else 2  # the longer side tells more
    found = {}
    for feature in maps:
        stride = 1
        while -(-image.shape[axis] // stride) > feature.shape[axis]:
            stride *= 2
        found[stride] = feature
    return found


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
