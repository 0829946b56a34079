"""MoCo v3: Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers, 2021.

https://arxiv.org/abs/2104.02057. What a student says of one view of an image, its query, is to be
nearest to what a teacher says of the other view, its key, among the keys of all images of the batch
(whatever devices they are on). The teacher, a moving average of the student, has no predictor.

The paper's ViTs have fixed sine-cosine positions and a patch projection that does not learn:
`model.options={"positions": "fixed"}` and `optimizer.freeze=("backbone/patch_embed/",)`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from jaxvision.losses.contrastive import contrast
from jaxvision.metrics import Mean
from jaxvision.models.pretraining.mocov3 import MoCo, Projection
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Metric, Variables
from jaxvision.tasks.pretraining.task import Pretraining
from jaxvision.tasks.pretraining.teacher import WithTeacher

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclass(frozen=True)
class MoCoV3(WithTeacher):
    """Two global views of each image are compared, others are not used.

    Attributes:
      temperature: what similarities are divided by.
    """

    metrics: ClassVar[dict[str, Metric]] = {
        **Pretraining.metrics,
        "contrast_accuracy": Metric("higher"),
    }
    judged: ClassVar[str] = "student"

    temperature: float = 0.2

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> "MoCoV3":
        own = config.pretraining
        head = Projection(own.projection_layers, own.hidden, own.bottleneck)
        # Of convolutional backbones, with two layers in the head, the prediction has no last norm.
        predictor = Projection(2, own.hidden, own.bottleneck, own.projection_layers > 2)
        model = MoCo(base.create_network(config, 0), head, predictor)
        return cls.with_heads(model, config, facts, temperature=own.temperature)

    def init(self, key: jax.Array, spec: base.Spec) -> Variables:
        return self.init_both(key, spec)

    def shown(self, shape: tuple[int, ...]) -> jax.Array:
        return jnp.zeros((1, 1, *shape))

    def taught(self, params: Any) -> Any:
        return {name: tree for name, tree in params.items() if name != "predictor"}

    def notes(self, config: "ConfigDict") -> list[str]:
        parts = config.optimizer.accumulate
        if parts == 1:
            return []
        return [f"optimizer.accumulate={parts}: images are contrasted within a micro-batch"]

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        view_key, dropout_key = jax.random.split(key)
        views, _ = self.views(batch, view_key)
        views = views[:2]
        rngs = {"dropout": dropout_key}
        queries: Any = self.model.apply({"params": params}, views, train=True, rngs=rngs)
        keys: Any = self.model.apply({"params": model_state["teacher"]}, views, method="keys")
        keys = jax.lax.stop_gradient(keys[::-1])
        losses, right = jax.vmap(contrast, (0, 0, None))(queries, keys, self.temperature)
        loss = losses.mean(1).sum()
        sums = {
            "loss": Mean.of(loss, jnp.ones(())),
            "contrast_accuracy": Mean.of(right, jnp.ones(right.shape)),
        }
        return loss, (model_state, sums)

    def step(self, state: Any, batch: Batch, key: jax.Array, update: base.Update):
        # The keys are those of a teacher that has seen the present student.
        return super().step(self.moved(state, update.total), batch, key, update)
