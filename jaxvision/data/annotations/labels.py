"""All classes of an image: `labels`, bool [b, k]."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxvision.data.annotations.kind import Kind, Record, Settings
from jaxvision.errors import UserError


class Labels(Kind):
    """Any number of classes an image, in any order; where there are only boxes, theirs."""

    record_keys = batch_keys = ("labels",)

    def present(self, record: Record) -> bool:
        return "labels" in record or "box_label" in record

    def decode(self, record: Record, name: str, settings: Settings) -> dict[str, Any]:
        given = record["labels"] if "labels" in record else record["box_label"]
        labels = np.unique(np.asarray(given, np.int64))
        count = settings.num_classes
        wrong = [int(label) for label in labels if not 0 <= label < count]
        if wrong and count:
            raise UserError(
                f"{name} has label {wrong[0]}, but there are {count} classes (0 to {count - 1})."
            )
        return {"labels": labels}

    def pad(self, record: Record, name: str, settings: Settings) -> dict[str, np.ndarray]:
        if not settings.num_classes:
            raise UserError("Sets of labels need the classes; name them in data.classes.")
        row = np.zeros(settings.num_classes, bool)
        row[record["labels"]] = True
        return {"labels": row}

    def classes(self, record: Record) -> np.ndarray:
        return record["labels"]

    def class_shares(self, batch: Mapping[str, Array], num_classes: int) -> Array:
        return batch["labels"].astype(jnp.float32)
