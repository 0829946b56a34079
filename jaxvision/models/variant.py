"""What the registry knows of a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flax import linen as nn

StateDict = dict[str, np.ndarray]


@dataclass(frozen=True)
class Variant:
    """A named network: its module, the fields that make it this variant, and its reference.

    Attributes:
      reference: the PyTorch class whose state_dict the parameter tree mirrors.
      input_shape: (h, w, c) of the published network.
      convert: brings a published state_dict whose names differ from the reference's to the
        reference's names, and leaves others alone.
      export: completes a state_dict of ours with what the reference's holds beside it.
    """

    module: type[nn.Module]
    options: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""
    input_shape: tuple[int, int, int] = (224, 224, 3)
    convert: Callable[[StateDict], StateDict] = dict
    export: Callable[[StateDict], StateDict] = dict
