"""PyTorch's state_dicts: arrays by the names of a reference's parameters."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

StateDict = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


def renamed(state: StateDict, patterns: Sequence[tuple[str, str]]) -> StateDict:
    """A state_dict with each regular expression replaced, one after the other, in its names."""
    out = {}
    for name, value in state.items():
        for pattern, replacement in patterns:
            name = re.sub(pattern, replacement, name)
        out[name] = value
    return out
