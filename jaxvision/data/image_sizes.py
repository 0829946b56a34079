"""Sizes of all images of a source, from their headers."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxvision.data.headers import MAX_PIXELS, CorruptImageError, size_of
from jaxvision.data.sources import Source, image_file
from jaxvision.progress import tracked


def image_sizes(
    source: Source, limit: int = MAX_PIXELS, skip: bool = False
) -> list[tuple[int, int] | None]:
    """(height, width) of every image, upright; None of those that are skipped.

    Of files only headers are read, and nothing is decoded. Sources that have no files give their
    records.

    Args:
      source: the records.
      limit: pixels that an image may have.
      skip: whether images with unreadable headers are skipped.

    Raises:
      CorruptImageError: a header cannot be read.
      UserError: there are volumes.
    """

    def of_record(index: int) -> tuple[int, int] | None:
        try:
            image = image_file(source, index)
            if image is None:
                image = source[index]["image"]
            if isinstance(image, np.ndarray):
                return image.shape[0], image.shape[1]
            return size_of(image, source.name(index), limit)
        except CorruptImageError:
            if skip:
                return None
            raise

    count = len(source)
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        return list(tracked(pool.map(of_record, range(count)), "Reading sizes of images", count))
