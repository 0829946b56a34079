"""What is compared with the PyTorch references: variants, sizes and where the golden files are.

Sizes are small and deep networks cut short: every line of a network runs, in seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Case:
    """One network on one batch.

    Attributes:
      image: its shape in PyTorch's layout, [b, c, h, w].
      options: for `models.create`.
    """

    image: tuple[int, int, int, int]
    classes: int = 10
    options: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "mlp": Case((8, 3, 32, 32)),
    "mlp_256x2": Case((8, 1, 28, 28)),
    "lenet5": Case((8, 1, 32, 32)),
    "resnet20_cifar": Case((4, 3, 32, 32)),
    "vit_tiny_patch16_224": Case((4, 3, 64, 64), options={"depth": 4}),
    "vit_mnist": Case((4, 1, 28, 28)),
    "unet": Case((2, 3, 64, 48), 3, {"width": 8, "depth": 3}),
    "unet_valid": Case((2, 1, 60, 44), 2, {"width": 8, "depth": 2}),
}
LOGITS, GRADIENTS = 240, 6  # how many elements of the logits and of each gradient are kept
