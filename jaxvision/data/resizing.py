"""Images and label maps brought to another size, by Pillow and OpenCV."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from jaxvision.errors import UserError, unknown

cv2.setNumThreads(0)  # records are prepared in parallel; threads within one would only compete

OPENCV = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """A size as (height, width); one number stands for both.

    Raises:
      UserError: it is neither, or not positive.
    """
    match size:
        case int() if size > 0:
            return size, size
        case [int(height), int(width)] if height > 0 and width > 0:
            return height, width
    raise UserError(f"A size is a positive integer or [height, width], got {size!r}.")


def resize_image(
    image: np.ndarray,
    size: int | Sequence[int],
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> np.ndarray:
    """Resizes uint8 [h, w, c] to (height, width).

    With `antialias` the kernel widens with the reduction, as Pillow and torchvision do it;
    without, it is OpenCV's sampling, several times faster and good enough for augmentation.

    Raises:
      UserError: unknown interpolation, or no size.
    """
    if interpolation not in OPENCV:
        raise unknown("interpolation", interpolation, OPENCV)
    height, width = pair(size)
    if (height, width) == image.shape[:2]:
        return image
    if antialias and interpolation != "nearest":
        planes = image[..., 0] if image.shape[-1] == 1 else image
        resized = np.asarray(
            Image.fromarray(planes).resize((width, height), _PILLOW[interpolation])
        )
    else:
        resized = cv2.resize(image, (width, height), interpolation=OPENCV[interpolation])
    return resized.reshape(height, width, image.shape[-1])


def resize_mask(mask: np.ndarray, size: int | Sequence[int]) -> np.ndarray:
    """Resizes [h, w] class indices by nearest neighbour (pixel centres aligned)."""
    height, width = pair(size)
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
