"""One network on one batch, compared with its reference."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Case:
    """One network on one batch.

    Attributes:
      image: its shape in PyTorch's layout, [b, c, h, w], or [b, c, d, h, w] of a volume.
      options: for `models.create`.
      features: layers of the reference whose outputs are our feature maps, finest first.
      gradients: whether a training step is compared too.
      variant: of the registry; None is the case's own name.
      slow: what need not run by default, because a smaller case runs the same code: "all", or the
        "training" step alone.
    """

    image: tuple[int, ...]
    classes: int = 10
    options: Mapping[str, Any] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    gradients: bool = False
    variant: str | None = None
    slow: Literal["", "training", "all"] = ""
