"""What diffusion shows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvision.tasks import pictures

PICTURE = "samples"


def picture(task: Any, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
    """Samples, as square as can be; uint8 [h, w, 3].

    Args:
      task: that made them.
      batch: not shown.
      outputs: `image` uint8 [n, h, w, c].
    """
    return pictures.grid(np.asarray(outputs["image"]))
