"""Networks that learn to say what was hidden from them: what their methods share.

Such a network has an `encoder`, which is what is wanted of it in the end, and gives its tokens or
its map of whole images by `encode`.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from jaxvision.errors import UserError
from jaxvision.layers.patches import patch_grid
from jaxvision.losses import Objective, Ratio
from jaxvision.metrics import Mean
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Sums, Variables
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.pretraining.task import Pretraining
from jaxvision.tasks.sampling import as_pixels

if TYPE_CHECKING:
    from ml_collections import ConfigDict


class Question(NamedTuple):
    """What a network is asked.

    Attributes:
      image: that it is given, normalised.
      inputs: what its call takes beside.
      hidden: patches [b, n] or pixels [b, h, w] that it does not see as they are.
      weights: how much each of these counts, where not all that are hidden count alike.
    """

    image: Float[Array, "b h w c"]
    inputs: Mapping[str, Array]
    hidden: Bool[Array, "b ..."]
    weights: Float[Array, "b ..."] | None = None


@dataclass(frozen=True)
class Reconstruction(Pretraining):
    """Batches carry `image` and `valid`. A method says what is asked, and what an answer costs.

    Attributes:
      pool: what the features of an image are: of "token" the first of its tokens, of "mean" the
        mean of its patches or of its map.
    """

    # Of what is drawn at evaluations.
    picture_name: ClassVar[str] = "reconstructions"
    # `pool` where the configuration says nothing.
    POOL: ClassVar[str] = "mean"
    # Of the state's collections those that are not the network's.
    APART: ClassVar[tuple[str, ...]] = ()

    model: Any
    pool: str = "mean"

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        return cls(
            model=base.create_network(config),
            class_names=facts.class_names,
            inputs=Inputs.create(config, facts),
            neighbours=config.pretraining.neighbours,
            pool=config.pretraining.pool or cls.POOL,
            **cls.own_fields(config),
        )

    @classmethod
    def own_fields(cls, config: "ConfigDict") -> dict[str, Any]:
        """The fields that the method adds, as configured."""
        return {}

    def init(self, key: jax.Array, spec: base.Spec) -> Variables:
        if "image" not in spec:
            raise UserError(
                f"{type(self.model).__name__} learns from one image, not from several views of it: "
                "take the transform `views` off data.train_transforms."
            )
        return super().init(key, spec)

    # -- what methods say ------------------------------------------------------------------------

    def ask(self, image: Float[Array, "b h w c"], key: jax.Array) -> Question:
        """Hides something of normalised images."""
        raise NotImplementedError

    def cost(
        self,
        answer: Array,
        image: Float[Array, "b h w c"],
        question: Question,
        valid: Bool[Array, " b"],
        model_state: Any,
    ) -> tuple[Ratio, Sums]:
        """What is to be lowered, and what else is measured of the network's output, float32."""
        raise NotImplementedError

    def shown(
        self, answer: Array, image: Float[Array, "b h w c"], question: Question, model_state: Any
    ) -> dict[str, Float[Array, "b h w c"]]:
        """`hidden`, what the network saw, and if there is one a `reconstruction`; normalised."""
        raise NotImplementedError

    # -- training --------------------------------------------------------------------------------

    def of_network(self, variables: Variables) -> Variables:
        return {kind: tree for kind, tree in variables.items() if kind not in self.APART}

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        augment_key, question_key, dropout_key = jax.random.split(key, 3)
        image = self.inputs.train(batch, augment_key)["image"]
        question = self.ask(image, question_key)
        answer, updated = base.apply_train(
            self.model,
            params,
            self.of_network(model_state),
            question.image,
            dropout_key,
            **question.inputs,
        )
        answer = answer.astype(jnp.float32)
        mean, sums = self.cost(answer, image, question, batch["valid"], model_state)
        return Objective({"reconstruction": mean}), ({**model_state, **updated}, sums)

    # -- evaluation and use ----------------------------------------------------------------------

    def _answered(self, variables: Variables, image: Array, key: jax.Array):
        """(question, answer) in evaluation mode, of normalised images."""
        question = self.ask(image, key)
        own = self.of_network(variables)
        answer = self.model.apply(own, question.image, train=False, **question.inputs)
        return question, answer.astype(jnp.float32)

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        """Sums: the loss, with what is hidden drawn by the key. Rows: as of all methods."""
        _, rows = super().evaluate(variables, batch, key)
        image = self.inputs.evaluate(batch["image"])
        question, answer = self._answered(variables, image, key)
        mean, sums = self.cost(answer, image, question, batch["valid"], variables)
        return {"loss": Mean(mean.total, mean.weight), **sums}, rows

    def features(self, variables: Variables, image: jax.Array) -> jax.Array:
        """Of whole images, as `pool` says."""
        own = self.of_network(variables)
        found = self.model.apply(own, self.inputs.evaluate(image), train=False, method="encode")
        others = 0
        if found.ndim == 4:
            found = found.reshape(len(found), -1, found.shape[-1])
        else:
            rows, columns = patch_grid(image.shape, self.model.encoder.patch_size)
            others = found.shape[1] - rows * columns
        if self.pool == "token" and not others:
            raise UserError(
                f"{type(self.model.encoder).__name__} has no class token: set "
                "--config.pretraining.pool=mean."
            )
        pooled = found[:, 0] if self.pool == "token" else found[:, others:].mean(1)
        return pooled.astype(jnp.float32)

    def pictured(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """`predict`'s, and uint8 [b, h, w, c]: `hidden`, what the network saw, `reconstruction`."""
        image = self.inputs.evaluate(batch["image"])
        question, answer = self._answered(variables, image, key)
        shown = self.shown(answer, image, question, variables)
        pixels = {name: as_pixels(self.inputs.pixels(one)) for name, one in shown.items()}
        return {**self.predict(variables, batch, key), **pixels}

    def _encoder(self, variables: Variables) -> Variables:
        network = self.of_network(variables).items()
        return {kind: tree["encoder"] for kind, tree in network if "encoder" in tree}

    def looked_at(self, variables: Variables) -> tuple[nn.Module, Variables]:
        """The encoder."""
        return self.model.encoder, self._encoder(variables)

    def parts(self, variables: Variables) -> dict[str, Variables]:
        encoder = self._encoder(variables)
        return {"encoder": encoder, "backbone": encoder}


def takes(module: nn.Module, argument: str) -> bool:
    """Whether a module's call has an argument of this name."""
    return argument in inspect.signature(type(module).__call__).parameters
