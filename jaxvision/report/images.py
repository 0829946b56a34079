"""Pictures as data URIs, in a budget of bytes for all of them together."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

# Longest side in pixels and WebP's quality, until pictures fit. What is smaller is never enlarged.
_LEVELS = ((640, 80), (480, 75), (320, 70), (224, 60), (160, 50))
_SHARP = 64  # pixels of the longest side up to which a picture is kept as it is


def encoded(images: Sequence[np.ndarray], budget: int) -> list[str]:
    """Data URIs of the pictures, so large that all fit; of the last ones "" where none are small
    enough.

    Args:
      images: uint8 [h, w, 1 or 3].
      budget: bytes that the URIs may have.
    """
    for side, quality in _LEVELS:
        found = []
        for image in images:
            found.append(_encode(image, side, quality))
            if sum(map(len, found)) > budget:
                break
        else:
            return found
    kept, size = [], 0
    for uri in found:
        size += len(uri)
        kept.append(uri if size <= budget else "")
    return kept + [""] * (len(images) - len(kept))


def _encode(image: np.ndarray, side: int, quality: int) -> str:
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")
    sharp = max(picture.size) <= _SHARP
    if max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=quality, lossless=sharp, method=2)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
