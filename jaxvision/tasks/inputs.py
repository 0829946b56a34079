"""What every task does to a batch before the model sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp

from jaxvision.data import augment

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclass(frozen=True)
class Inputs:
    """uint8 images to the model's input: augmentation in training, normalisation always."""

    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    augmentations: tuple[Mapping[str, Any], ...] = ()
    num_classes: int = 0
    keypoint_order: tuple[int, ...] = ()

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        """As the group `data` says, for data of these facts.

        Raises:
          UserError: unknown augmentation or parameter.
        """
        augment.validate(config.data.augment)
        return cls(
            tuple(config.data.mean),
            tuple(config.data.std),
            tuple(config.data.augment),
            len(facts.class_names),
            facts.keypoint_order,
        )

    def replaced(self, augmentations: tuple[Mapping[str, Any], ...]) -> Self:
        """The same with other augmentations."""
        return replace(self, augmentations=augmentations)

    def train(self, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        """Augmented and normalised; labels may become `label_probs` (mixup, cutmix)."""
        batch = {**batch, "image": augment.to_float(batch["image"])}
        batch = augment.augment(
            key, batch, self.augmentations, self.num_classes, self.keypoint_order
        )
        return {**batch, "image": augment.normalize(batch["image"], self.mean, self.std)}

    def evaluate(self, image: jax.Array) -> jax.Array:
        """Normalised."""
        return augment.normalize(augment.to_float(image), self.mean, self.std)

    def pixels(self, image: jax.Array) -> jax.Array:
        """Of normalised images: from 0 to 1 again."""
        return image * jnp.asarray(self.std) + jnp.asarray(self.mean)
