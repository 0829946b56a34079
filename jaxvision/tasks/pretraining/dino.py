"""DINO: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021.

https://arxiv.org/abs/2104.14294. A student sees all views of an image, a teacher only the global
ones; the student learns what the teacher says of the other views. The teacher is a moving average
of the student. Its outputs are sharpened by a low temperature, and centred by a moving average of
themselves, so that they do not collapse.

Views come from the host transform `views`: `views_global` [b, v, h, w, c], and any other `views_*`
that the student alone sees. Without it, two augmentations of `image` are the global views.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp

from jaxvision.errors import UserError
from jaxvision.metrics import Mean
from jaxvision.models.pretraining.dino import DinoHead, WithHead
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Metric, Variables
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.pretraining.task import Pretraining

if TYPE_CHECKING:
    from ml_collections import ConfigDict

GLOBAL = "views_global"


@dataclass(frozen=True)
class Dino(Pretraining):
    """The teacher's parameters are the collection `teacher` of the state, the centre `center`.

    Attributes:
      model: the backbone under its head.
      student_temperature, teacher_temperature: what outputs are divided by.
      teacher_momentum: of the teacher at the first step; 1 at the last.
      center_momentum: of the centre.
    """

    metrics: ClassVar[dict[str, Metric]] = {
        **Pretraining.metrics,
        "teacher_entropy": Metric("neither"),
    }

    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    teacher_momentum: float = 0.996
    center_momentum: float = 0.9

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        own = config.pretraining
        head = DinoHead(own.prototypes, own.hidden, own.bottleneck, own.head_norm)
        return cls(
            model=WithHead(base.create_network(config, 0), head),
            class_names=facts.class_names,
            inputs=Inputs.create(config, facts),
            student_temperature=own.student_temperature,
            teacher_temperature=own.teacher_temperature,
            teacher_momentum=own.teacher_momentum,
            center_momentum=own.center_momentum,
            neighbours=own.neighbours,
        )

    def init(self, key: jax.Array, spec: base.Spec) -> Variables:
        shape = spec[GLOBAL].shape[2:] if GLOBAL in spec else spec["image"].shape[1:]
        student = dict(self.model.init(key, jnp.zeros((1, *shape)), train=False))
        if student.keys() != {"params"}:
            raise UserError(
                "Self-supervised learning here is for networks without batch statistics; "
                "choose a transformer, e.g. model.name='vit_small_patch16_224'."
            )
        center = jnp.zeros((self.model.head.features,))
        teacher = jax.tree.map(jnp.copy, student["params"])
        return {**student, "teacher": teacher, "center": {"value": center}}

    # -- training --------------------------------------------------------------------------------

    def _views(self, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(global views [v, b, h, w, c], the student's others by name), augmented, normalised."""
        found = {name: views for name, views in batch.items() if name.startswith("views_")}
        if not found:
            found = {GLOBAL: jnp.stack([batch["image"]] * 2, 1)}
        if GLOBAL not in found or found[GLOBAL].shape[1] < 2:
            raise UserError("The transform `views` must make two or more views named 'global'.")
        ready = {}
        for index, (name, views) in enumerate(sorted(found.items())):
            rows = views.swapaxes(0, 1)  # view by view, so that devices keep their images
            flat = {"image": rows.reshape(-1, *rows.shape[2:])}
            images = self.inputs.train(flat, jax.random.fold_in(key, index))["image"]
            ready[name] = images.reshape(*rows.shape[:2], *images.shape[1:])
        return ready.pop(GLOBAL), ready

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        view_key, dropout_key = jax.random.split(key)
        views, others = self._views(batch, view_key)

        def outputs(params: Any, views: jax.Array, **more: Any) -> jax.Array:
            flat = views.reshape(-1, *views.shape[2:])
            found: Any = self.model.apply({"params": params}, flat, **more)
            return found.astype(jnp.float32).reshape(*views.shape[:2], -1)

        center = model_state["center"]["value"]
        taught = jax.lax.stop_gradient(outputs(model_state["teacher"], views, train=False))
        targets = jax.nn.softmax((taught - center) / self.teacher_temperature)
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
        state, sums = super().step(state, batch, key, update)
        momentum = base.cosine(self.teacher_momentum, 1.0, state.step / update.total)
        teacher = base.moving_average(state.model_state["teacher"], state.params, momentum)
        return state.replace(model_state={**state.model_state, "teacher": teacher}), sums

    # -- evaluation and use ----------------------------------------------------------------------

    def features(self, variables: Variables, image: jax.Array) -> jax.Array:
        """What the teacher's backbone gives, float32 [b, f]."""
        teacher = {"params": variables["teacher"]["backbone"]}
        return base.apply_eval(self.model.backbone, teacher, self.inputs.evaluate(image))

    def parts(self, variables: Variables) -> dict[str, Variables]:
        return {
            "teacher": {"params": variables["teacher"]["backbone"]},
            "backbone": {"params": variables["params"]["backbone"]},
        }
