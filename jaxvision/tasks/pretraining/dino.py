"""DINO: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021.

https://arxiv.org/abs/2104.14294. A student sees all views of an image, a teacher only the global
ones; the student learns what the teacher says of the other views. The teacher is a moving average
of the student. Its outputs are sharpened by a low temperature, and centred by a moving average of
themselves, so that they do not collapse.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from jaxvision.metrics import Mean
from jaxvision.models.pretraining.dino import DinoHead, WithHead
from jaxvision.ops.sharing import as_batch, as_views
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Metric, Variables
from jaxvision.tasks.pretraining.task import Pretraining
from jaxvision.tasks.pretraining.teacher import WithTeacher

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclass(frozen=True)
class Dino(WithTeacher):
    """The centre is the collection `center` of the state.

    Attributes:
      student_temperature, teacher_temperature: what outputs are divided by.
      first_temperature: the teacher's at the first step.
      warmup: part of the training in which the teacher's temperature rises evenly.
      frozen: part of the training, from its beginning on, in which the prototypes do not learn.
      center_momentum: of the centre.
    """

    metrics: ClassVar[dict[str, Metric]] = {
        **Pretraining.metrics,
        "teacher_entropy": Metric("neither"),
    }
    judged: ClassVar[str] = "teacher"

    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    first_temperature: float = 0.04
    warmup: float = 0.0
    frozen: float = 0.0
    center_momentum: float = 0.9

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> "Dino":
        own = config.pretraining
        head = DinoHead(own.prototypes, own.hidden, own.bottleneck, own.head_norm)
        return cls.with_heads(
            WithHead(base.create_network(config, 0), head),
            config,
            facts,
            student_temperature=own.student_temperature,
            teacher_temperature=own.teacher_temperature,
            first_temperature=own.first_teacher_temperature,
            warmup=own.teacher_temperature_warmup,
            frozen=own.frozen_prototypes,
            center_momentum=own.center_momentum,
        )

    def init(self, key: jax.Array, spec: base.Spec) -> Variables:
        center = jnp.zeros((self.model.head.features,))
        return {**self.init_both(key, spec), "center": {"value": center}}

    # -- training --------------------------------------------------------------------------------

    def temperature_at(self, part: jax.Array | float) -> jax.Array:
        """The teacher's temperature when this part of the training is over."""
        risen = jnp.clip(part / self.warmup, 0, 1) if self.warmup else jnp.ones(())
        return self.first_temperature + risen * (self.teacher_temperature - self.first_temperature)

    def loss(
        self,
        params: Any,
        model_state: Any,
        batch: Batch,
        key: jax.Array,
        teacher_temperature: jax.Array | None = None,
    ):
        """The teacher's temperature is the last one, where none is given."""
        view_key, dropout_key = jax.random.split(key)
        views, others = self.views(batch, view_key)

        def outputs(params: Any, views: jax.Array, **more: Any) -> jax.Array:
            found: Any = self.model.apply({"params": params}, as_batch(views), **more)
            return as_views(found.astype(jnp.float32), len(views))

        if teacher_temperature is None:
            teacher_temperature = self.temperature_at(1.0)
        center = model_state["center"]["value"]
        taught = jax.lax.stop_gradient(outputs(model_state["teacher"], views, train=False))
        targets = jax.nn.softmax((taught - center) / teacher_temperature)
        students = [
            outputs(params, v, train=True, rngs={"dropout": jax.random.fold_in(dropout_key, i)})
            for i, v in enumerate([views, *others.values()])
        ]
        log_p = jax.nn.log_softmax(jnp.concatenate(students) / self.student_temperature)
        # Cross-entropy of every pair of a teacher's view and another view of the student's.
        pairs = -jnp.einsum("tbk,sbk->tsb", targets, log_p).mean(-1)
        different = 1 - jnp.eye(len(pairs), pairs.shape[1])
        loss = jnp.sum(pairs * different) / different.sum()
        entropy = -jnp.sum(targets * jnp.log(jnp.maximum(targets, 1e-30)), -1).mean()
        center = self.center_momentum * center + (1 - self.center_momentum) * taught.mean((0, 1))
        sums = {
            "loss": Mean.of(loss, jnp.ones(())),
            "teacher_entropy": Mean.of(entropy, jnp.ones(())),
        }
        return loss, ({**model_state, "center": {"value": center}}, sums)

    def step(self, state: Any, batch: Batch, key: jax.Array, update: base.Update):
        part = state.step / update.total
        loss = partial(self.loss, teacher_temperature=self.temperature_at(part))
        (group,) = self.groups
        gradient, (model_state, sums) = update.gradients(group, loss, state, batch, key)
        old, state = state.params, state.replace(model_state=model_state)
        if self.frozen:
            rests = part < self.frozen
            gradient = _with_prototypes(gradient, gradient, lambda one, _: jnp.where(rests, 0, one))
            state = update(group, gradient, state)
            held = _with_prototypes(state.params, old, lambda new, old: jnp.where(rests, old, new))
            state = state.replace(params=held)
        else:
            state = update(group, gradient, state)
        return self.moved(state, update.total), sums


def _with_prototypes(tree: Any, other: Any, change: Any) -> Any:
    """The tree with `change(its, the other's)` of its prototypes."""
    name = "last_layer"
    own = jax.tree.map(change, tree["head"][name], other["head"][name])
    return {**tree, "head": {**tree["head"], name: own}}
