"""How generated images are judged: by features of a trained network, and by their pixels.

The network's variables are the collection `judge` of a task's variables, so that they are stored
with a run, and evaluating it later needs nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision import models
from jaxvision.data.augment import normalize
from jaxvision.errors import UserError
from jaxvision.metrics import frechet_distance
from jaxvision.metrics.features import inception_score, kernel_distance, precision_and_recall
from jaxvision.ops.resize import resize
from jaxvision.tasks import base, kept
from jaxvision.tasks.base import Metric, Reader, Variables

if TYPE_CHECKING:
    from ml_collections import ConfigDict

COLLECTION = "judge"
_SIDE = 8  # of the images whose pixels are compared

METRICS = {
    "frechet_distance": Metric("lower"),
    "sample_spread": Metric("higher"),
    "fid": Metric("lower"),
    "kid": Metric("lower"),
    "precision": Metric("higher"),
    "recall": Metric("higher"),
    "inception_score": Metric("higher"),
}


@dataclass(frozen=True)
class Judge:
    """What compares generated images with real ones.

    Attributes:
      model: its features are compared; None compares pixels alone.
      weights: that the model has, for the error where it has none.
      name: of the model.
      classes: whether the model knows classes.
      size: side in pixels of what it is shown; 0 shows images as they are.
      mean, std: of its images.
      neighbours: of precision and recall.
    """

    model: nn.Module | None = None
    weights: str = ""
    name: str = ""
    classes: int = 0
    size: int = 0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    neighbours: int = 3

    @classmethod
    def create(cls, keys: "ConfigDict") -> Self:
        """As the keys of `judging_keys` say.

        Raises:
          UserError: no such network or option, or a network without weights.
        """
        if not keys.network:
            return cls()
        if not keys.weights:
            raise UserError(
                f"A judge of random weights judges nothing: set judge.weights of {keys.network}."
            )
        options = keys.options.to_dict()
        return cls(
            models.create(keys.network, keys.classes, **options),
            keys.weights,
            keys.network,
            keys.classes,
            keys.size,
            tuple(keys.mean),
            tuple(keys.std),
            keys.neighbours,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the metrics that it gives."""
        if self.model is None:
            return ("frechet_distance", "sample_spread")
        return tuple(name for name in METRICS if name != "inception_score" or self.classes)

    def init(self, key: Array, shape: tuple[int, ...]) -> Variables:
        """`{"judge": variables}` for images [h, w, c]; {} without a network."""
        if self.model is None:
            return {}
        return kept.fresh(COLLECTION, self.model, self.size, key, shape)

    def load(self, variables: Variables, read: Reader) -> Variables:
        """`variables` with the judge's trained ones.

        Raises:
          UserError: its weights cannot be had or do not fit.
        """
        if self.model is None:
            return variables
        return kept.filled(COLLECTION, self.name, self.model, self.weights, variables, read)

    def rows(
        self,
        variables: Variables,
        real: Float[Array, "b h w c"],
        fake: Float[Array, "b h w c"],
    ) -> dict[str, Array]:
        """What `scores` compares, a row of each image; images are in 0..1."""
        found = {
            f"{name}_pixels": resize(images, (_SIDE, _SIDE)).reshape(len(images), -1)
            for name, images in (("real", real), ("fake", fake))
        }
        if self.model is None:
            return found
        own = variables[COLLECTION]
        for name, images in (("real", real), ("fake", fake)):
            shown = self._shown(images)
            found[f"{name}_features"] = base.features_before_classifier(self.model, own, shown)
            if self.classes and name == "fake":
                logits = base.apply_eval(self.model, own, shown)
                found["probabilities"] = jax.nn.softmax(logits)
        return found

    def _shown(self, images: Array) -> Array:
        if self.size and images.shape[1:3] != (self.size, self.size):
            images = resize(images, (self.size, self.size))
        return normalize(images, self.mean, self.std)

    def scores(self, rows: Mapping[str, Any]) -> dict[str, float]:
        """The metrics `names` of the rows of all images.

        `frechet_distance` is that of 8x8 pixels in -1..1, which needs no network. `sample_spread`
        is the mean distance in these pixels of generated images from their mean, divided by that of
        real ones: near 0 where all are alike.

        Raises:
          UserError: there are too few images.
        """
        real, fake = (2 * np.asarray(rows[f"{name}_pixels"]) - 1 for name in ("real", "fake"))
        found = {
            "frechet_distance": frechet_distance(real, fake),
            "sample_spread": _spread(fake) / max(_spread(real), 1e-12),
        }
        if self.model is None:
            return found
        real, fake = (np.asarray(rows[f"{name}_features"]) for name in ("real", "fake"))
        precision, recall = precision_and_recall(real, fake, self.neighbours)
        found |= {
            "fid": frechet_distance(real, fake),
            "kid": kernel_distance(real, fake),
            "precision": precision,
            "recall": recall,
        }
        if self.classes:
            found["inception_score"] = inception_score(rows["probabilities"])
        return found


def _spread(points: np.ndarray) -> float:
    return float(np.linalg.norm(points - points.mean(0), axis=1).mean())
