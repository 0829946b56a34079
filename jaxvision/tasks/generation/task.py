"""Generative adversarial learning: DCGAN, Radford et al. 2015, https://arxiv.org/abs/1511.06434.

A step updates the discriminator on real and on generated images, then the generator at the new
discriminator, which is to take its images for real (the non-saturating loss of Goodfellow et al.
2014, https://arxiv.org/abs/1406.2661).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.metrics import Mean, frechet_distance
from jaxvision.ops.resize import resize
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Metric, Sums, Variables
from jaxvision.tasks.inputs import Inputs

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_COMPARED = 8  # side of the images whose pixels are compared


@dataclass(frozen=True)
class Dcgan(base.Task):
    """Batches carry `image` and `valid`. Images are brought to -1..1, whatever `data.mean` says.

    Parameters and batch statistics are trees with a branch for each network.

    Attributes:
      model: the generator.
      discriminator: the network that judges.
    """

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "discriminator": ("discriminator",),
        "generator": ("generator",),
    }
    metrics: ClassVar[dict[str, Metric]] = {
        "frechet_distance": Metric("lower"),
        "discriminator_loss": Metric("neither", fatal=True),
        "generator_loss": Metric("neither", fatal=True),
        "real_probability": Metric("neither"),
        "fake_probability": Metric("neither"),
    }
    main_metric: ClassVar[str] = "frechet_distance"

    model: nn.Module
    discriminator: nn.Module
    inputs: Inputs = field(default_factory=Inputs)
    class_names: tuple[str, ...] = ()

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        own = config.generation
        inputs = Inputs((0.5,), (0.5,), Inputs.create(config, facts).augmentations)
        return cls(
            model=base.create_network(config, channels=config.data.channels),
            discriminator=models.create(own.discriminator, **own.discriminator_options.to_dict()),
            inputs=inputs,
        )

    def init(self, key: jax.Array, spec: base.Spec) -> Variables:
        of_generator, of_discriminator = jax.random.split(key)
        wanted = tuple(spec["image"].shape[1:])
        latent = jnp.zeros((1, self.model.latent))
        images, generator = self.model.init_with_output(of_generator, latent, train=False)
        if images.shape[1:] != wanted:
            raise UserError(
                f"The generator makes images of {list(images.shape[1:])}, the data have "
                f"{list(wanted)}. Set --config.model.options.size, or resize the data."
            )
        judge = self.discriminator.init(of_discriminator, images, train=False)
        pair = {"generator": dict(generator), "discriminator": dict(judge)}
        kinds = {kind for variables in pair.values() for kind in variables}
        return {
            kind: {name: variables.get(kind, {}) for name, variables in pair.items()}
            for kind in sorted(kinds)
        }

    # -- one network of the two ----------------------------------------------------------------

    def _latent(self, key: jax.Array, rows: int) -> jax.Array:
        return jax.random.normal(key, (rows, self.model.latent))

    def _train(self, name: str, params: Any, model_state: Any, inputs: jax.Array):
        """(output in training mode, new model_state) of one network."""
        network = self.model if name == "generator" else self.discriminator
        own = {kind: tree[name] for kind, tree in model_state.items()}
        output, updated = network.apply(
            {"params": params[name], **own}, inputs, train=True, mutable=list(own)
        )
        state = {kind: {**tree, name: updated[kind]} for kind, tree in model_state.items()}
        return output.astype(jnp.float32), state

    def _generate(self, variables: Variables, latent: jax.Array) -> jax.Array:
        """float32 [b, h, w, c] in -1..1, in evaluation mode."""
        own = {kind: tree["generator"] for kind, tree in variables.items()}
        return base.apply_eval(self.model, own, latent)

    # -- training --------------------------------------------------------------------------------

    def step(self, state: Any, batch: Batch, key: jax.Array, update: base.Update):
        judge_key, generate_key = jax.random.split(key)

        def judging(params: Any, model_state: Any, batch: Batch, key: jax.Array):
            augment_key, latent_key = jax.random.split(key)
            real = self.inputs.train(batch, augment_key)["image"]
            latent = self._latent(latent_key, len(real))
            fake, model_state = self._train("generator", state.params, model_state, latent)
            of_real, model_state = self._train("discriminator", params, model_state, real)
            of_fake, model_state = self._train("discriminator", params, model_state, fake)
            loss = jnp.mean(jax.nn.softplus(-of_real)) + jnp.mean(jax.nn.softplus(of_fake))
            one = jnp.ones(())
            sums = {
                "discriminator_loss": Mean.of(loss, one),
                "real_probability": Mean.of(jax.nn.sigmoid(of_real).mean(), one),
                "fake_probability": Mean.of(jax.nn.sigmoid(of_fake).mean(), one),
            }
            return loss, (model_state, sums)

        gradient, (model_state, sums) = update.gradients(
            "discriminator", judging, state, batch, judge_key
        )
        state = update("discriminator", gradient, state.replace(model_state=model_state))

        def generating(params: Any, model_state: Any, batch: Batch, key: jax.Array):
            latent = self._latent(key, len(batch["image"]))
            fake, model_state = self._train("generator", params, model_state, latent)
            of_fake, model_state = self._train("discriminator", state.params, model_state, fake)
            loss = jnp.mean(jax.nn.softplus(-of_fake))
            return loss, (model_state, {"generator_loss": Mean.of(loss, jnp.ones(()))})

        gradient, (model_state, more) = update.gradients(
            "generator", generating, state, batch, generate_key
        )
        state = update("generator", gradient, state.replace(model_state=model_state))
        return state, {**more, **sums}

    # -- evaluation and use ----------------------------------------------------------------------

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        """Rows: the pixels of the real images and of as many generated ones, 8 x 8 each."""
        real = self.inputs.evaluate(batch["image"])
        fake = self._generate(variables, self._latent(key, len(real)))
        own = {kind: tree["discriminator"] for kind, tree in variables.items()}
        judged = [base.apply_eval(self.discriminator, own, images) for images in (real, fake)]
        valid = batch["valid"]
        sums = {
            "discriminator_loss": Mean.of(
                jax.nn.softplus(-judged[0]) + jax.nn.softplus(judged[1]), valid
            ),
            "generator_loss": Mean.of(jax.nn.softplus(-judged[1]), valid),
            "real_probability": Mean.of(jax.nn.sigmoid(judged[0]), valid),
            "fake_probability": Mean.of(jax.nn.sigmoid(judged[1]), valid),
        }
        small = [resize(images, (_COMPARED, _COMPARED)) for images in (real, fake)]
        rows = {"real": small[0], "fake": small[1]}
        return sums, {name: pixels.reshape(len(pixels), -1) for name, pixels in rows.items()}

    def score(self, rows: Mapping[str, Any]) -> dict[str, float]:
        """The Fréchet distance between the Gaussians of real and generated pixels."""
        return {"frechet_distance": frechet_distance(rows["real"], rows["fake"])}

    def sample(self, variables: Variables, key: jax.Array, count: int) -> jax.Array:
        """uint8 [count, h, w, c]; sample k is decided by the key and k."""
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(count))
        latent = jax.vmap(lambda one: jax.random.normal(one, (self.model.latent,)))(keys)
        images = self._generate(variables, latent)
        return jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.uint8)
