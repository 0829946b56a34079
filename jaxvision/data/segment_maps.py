"""Maps of an image's segments in a file, decoded when they are asked for.

Kirillov et al., Panoptic Segmentation, 2019, https://arxiv.org/abs/1801.00868, in COCO's files: the
colour of a pixel is the number of its segment, R + 256 G + 65536 B, and 0 is no segment.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Integer, UInt8

from jaxvision.data.codecs import decode_image
from jaxvision.errors import UserError


def segment_numbers(colours: UInt8[np.ndarray, "h w 3"]) -> Int[np.ndarray, "h w"]:
    """The numbers of segments that colours stand for, int32."""
    packed = np.zeros((*colours.shape[:2], 4), np.uint8)
    packed[..., :3] = colours
    return packed.view("<i4")[..., 0]


class SegmentImage:
    """An encoded image of segments, which several maps share."""

    def __init__(self, data: bytes, known: Int[np.ndarray, " n"]):
        """
        Args:
          data: contents of the file.
          known: the numbers of all segments that its data set lists.
        """
        self._data, self._known = data, known
        self._places: np.ndarray | None = None

    def places(self, name: str, max_pixels: int) -> Int[np.ndarray, "h w"]:
        """For each pixel 0, or k + 1 where it is of the segment `known[k]`.

        Raises:
          CorruptImageError: it cannot be decoded.
          UserError: it has a segment that is not known.
        """
        if self._places is None:
            numbers = segment_numbers(decode_image(self._data, 3, name, max_pixels))
            listed = np.concatenate([[0], self._known])
            order = np.argsort(listed)
            place = np.searchsorted(listed, numbers, sorter=order).clip(max=len(listed) - 1)
            self._places = order[place].astype(np.int32)
            if len(strange := numbers[listed[self._places] != numbers]):
                raise UserError(
                    f"{name} has a segment of number {strange[0]} (its colour is R + 256 G + "
                    "65536 B), which its JSON file does not list."
                )
        return self._places


@dataclass(frozen=True, eq=False)
class SegmentMap:
    """What an image's segments are: a map of integers that a source gives before it is decoded.

    Attributes:
      image: of the segments.
      values: of pixels without a segment, then of each known segment.
    """

    image: SegmentImage
    values: Integer[np.ndarray, " n1"]

    def decoded(self, name: str, max_pixels: int) -> Integer[np.ndarray, "h w"]:
        """The map; see `SegmentImage.places` for what it raises."""
        return self.values[self.image.places(name, max_pixels)]
