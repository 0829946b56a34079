"""Self-supervised learning: a network learns from images without labels, which only judge it.

A method is a class of its own, in a file for each paper. How a backbone learns is the key
`pretraining.method`; a network that reconstructs has the method of its module's `METHOD`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np
from flax import linen as nn

from jaxvision import models
from jaxvision.classical.probes import leave_one_out_accuracy, unit
from jaxvision.registry import Registry, located
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Metric, Sums, Variables
from jaxvision.tasks.inputs import Inputs

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# By name, where the class is: `module:class`.
METHODS: Registry[str] = Registry(
    "method",
    {
        "dino": "jaxvision.tasks.pretraining.dino:Dino",
        "mocov3": "jaxvision.tasks.pretraining.mocov3:MoCoV3",
        "mae": "jaxvision.tasks.pretraining.mae:Mae",
        "beit": "jaxvision.tasks.pretraining.beit:BeitPretraining",
        "denoising": "jaxvision.tasks.pretraining.corrupted:Denoising",
        "context": "jaxvision.tasks.pretraining.corrupted:Context",
        "igpt": "jaxvision.tasks.pretraining.igpt:ImageGPT",
    },
)


@dataclass(frozen=True)
class Pretraining(base.Task):
    """What all methods share. Batches carry `image` or `views_...`, and `valid`.

    With `label`, features are measured.

    Attributes:
      neighbours: that vote in `knn_accuracy`.
    """

    annotations: ClassVar[tuple[str, ...]] = ("label",)
    metrics: ClassVar[dict[str, Metric]] = {
        "loss": Metric("lower", fatal=True),
        "knn_accuracy": Metric("higher"),
        "feature_spread": Metric("higher"),
        "token_accuracy": Metric("higher"),
        "psnr": Metric("higher"),
        "bits_per_dimension": Metric("lower"),
    }
    main_metric: ClassVar[str] = "knn_accuracy"

    model: nn.Module
    class_names: tuple[str, ...] = ()
    inputs: Inputs = field(default_factory=Inputs)
    neighbours: int = 20

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> "Pretraining":
        """The task of the configured method."""
        module = models.variant(config.model.name).module
        method = getattr(module, "METHOD", config.pretraining.method)
        return located(METHODS[method]).create(config, facts)

    def features(self, variables: Variables, image: jax.Array) -> jax.Array:
        """A vector for each uint8 image, float32 [b, f]."""
        raise NotImplementedError

    def predict(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """`features` [b, f]."""
        return {"features": self.features(variables, batch["image"])}

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        """Rows: the features, and the labels where there are any."""
        rows = {"features": self.features(variables, batch["image"])}
        return {}, rows | ({"label": batch["label"]} if "label" in batch else {})

    def scores(self) -> tuple[str, ...]:
        return ("knn_accuracy", "feature_spread")

    def score(self, rows: Mapping[str, Any]) -> dict[str, float]:
        """`feature_spread`, and `knn_accuracy` where there are labels.

        The spread is 0 where all images have the same features, and at most 1: how long the mean of
        the unit vectors is not.
        """
        features = rows["features"]
        found = {"feature_spread": float(1 - np.linalg.norm(unit(features).mean(0)))}
        if "label" in rows:
            found["knn_accuracy"] = leave_one_out_accuracy(features, rows["label"], self.neighbours)
        return found
