"""The class of an image: `label`, int32 [b]."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxvision.data.annotations.kind import Kind, Record, Settings
from jaxvision.errors import UserError


class Label(Kind):
    """One class an image."""

    record_keys = batch_keys = ("label",)

    def decode(self, record: Record, name: str, settings: Settings) -> dict[str, Any]:
        self.checked(record["label"], name, settings)
        return {"label": record["label"]}

    def checked(self, label: int, name: str, settings: Settings) -> None:
        """Raises:
        UserError: the label is no class.
        """
        if settings.num_classes and not 0 <= label < settings.num_classes:
            raise UserError(
                f"{name} has label {label}, but there are {settings.num_classes} classes "
                f"(0 to {settings.num_classes - 1})."
            )

    def pad(self, record: Record, name: str, settings: Settings) -> dict[str, np.ndarray]:
        return {"label": np.int32(record["label"])}  # type: ignore[dict-item]

    def classes(self, record: Record) -> np.ndarray:
        return np.array([record["label"]])

    def class_shares(self, batch: Mapping[str, Array], num_classes: int) -> Array:
        return jax.nn.one_hot(batch["label"], num_classes, dtype=jnp.float32)
