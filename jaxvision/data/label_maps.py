"""Maps of class indices: their types, and the values that stand for no class."""

from typing import Any

import numpy as np

IGNORE = 255  # value of label maps uint8 where there is no class
WIDE_IGNORE = 65535  # and of wider ones, in which 255 is a class


def ignored(dtype: Any) -> int:
    """The value of label maps of a type where there is no class."""
    return IGNORE if np.dtype(dtype) == np.uint8 else WIDE_IGNORE


def label_type(num_classes: int) -> np.dtype:
    """The type of label maps of so many classes: uint8, or int32 of more than 255."""
    return np.dtype(np.uint8 if num_classes <= IGNORE else np.int32)
