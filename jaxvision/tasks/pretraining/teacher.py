"""What methods share in which a student learns from its own moving average, the teacher."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvision.errors import UserError
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Variables
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.pretraining import views
from jaxvision.tasks.pretraining.task import Pretraining

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclass(frozen=True)
class WithTeacher(Pretraining):
    """A backbone under a head, `backbone` and `head` of its parameters.

    Batches carry `views_...` or `image`; see `views.of_batch`. The teacher's parameters are the
    collection `teacher` of the state.

    Attributes:
      teacher_momentum: part of the teacher that stays at the first step; at the last all does.
      augmentations: of views by name, see `views.checked`.
      judged: whose features are measured and predicted, "teacher" or "student".
    """

    judged: ClassVar[str]

    model: Any
    teacher_momentum: float = 0.996
    augmentations: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def with_heads(cls, model: nn.Module, config: "ConfigDict", facts: Any, **more: Any) -> Self:
        """The task of a network, and of what all methods are configured by."""
        own = config.pretraining
        return cls(
            model=model,
            class_names=facts.class_names,
            inputs=Inputs.create(config, facts),
            neighbours=own.neighbours,
            teacher_momentum=own.teacher_momentum,
            augmentations=views.checked(own.augment.to_dict()),
            **more,
        )

    def init_both(self, key: jax.Array, spec: base.Spec) -> Variables:
        """The student's `params`, and its `teacher`, which has those of its `taught` networks.

        Raises:
          UserError: the network has more variables than parameters.
        """
        student = dict(self.model.init(key, self.shown(views.image_shape(spec)), train=False))
        if student.keys() != {"params"}:
            raise UserError(
                "Self-supervised learning here is for networks without batch statistics; "
                "choose a transformer, e.g. model.name='vit_small_patch16_224'."
            )
        return {**student, "teacher": jax.tree.map(jnp.copy, self.taught(student["params"]))}

    def shown(self, shape: tuple[int, ...]) -> jax.Array:
        """What the network is given, of an image of shape [h, w, c]."""
        return jnp.zeros((1, *shape))

    def taught(self, params: Any) -> Any:
        """Of the student's parameters, those that the teacher has too."""
        return params

    def moved(self, state: Any, total: int) -> Any:
        """The state with the teacher moved to the student, as far as at this step."""
        momentum = base.cosine(self.teacher_momentum, 1.0, state.step / total)
        teacher = base.moving_average(
            state.model_state["teacher"], self.taught(state.params), momentum
        )
        return state.replace(model_state={**state.model_state, "teacher": teacher})

    def views(self, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(global views [v, b, h, w, c], others by name); see `views.of_batch`."""
        return views.of_batch(self.inputs, self.augmentations, batch, key)

    def features(self, variables: Variables, image: jax.Array) -> jax.Array:
        """What the judged backbone gives, float32 [b, f]."""
        return base.apply_eval(*self.looked_at(variables), self.inputs.evaluate(image))

    def looked_at(self, variables: Variables) -> tuple[nn.Module, Variables]:
        """The judged backbone."""
        kind = "teacher" if self.judged == "teacher" else "params"
        return self.model.backbone, {"params": variables[kind]["backbone"]}

    def parts(self, variables: Variables) -> dict[str, Variables]:
        """The teacher's backbone and the student's, the judged one first."""
        both = {
            "teacher": {"params": variables["teacher"]["backbone"]},
            "backbone": {"params": variables["params"]["backbone"]},
        }
        return both if self.judged == "teacher" else dict(reversed(both.items()))
