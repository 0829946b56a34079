"""Generative adversarial learning: Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661.

A step updates the discriminator on real and on generated images, then the generator at the new
discriminator, which is to take its images for real (the paper's non-saturating loss). DCGAN
(Radford et al. 2015, https://arxiv.org/abs/1511.06434) needs no more. StyleGAN2 (Karras et al.
2020, https://arxiv.org/abs/1912.04958) adds two updates that are made once in several steps: the
discriminator's by the gradient of its logits of real images, R1 (Mescheder et al. 2018,
https://arxiv.org/abs/1801.04406), and the generator's by how much its Jacobian's lengths differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp

from jaxvision import models, pretrained
from jaxvision.errors import UserError
from jaxvision.metrics import Mean
from jaxvision.tasks import base, judging, networks, sampling
from jaxvision.tasks.base import Batch, Metric, Sums, Variables
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.judging import Judge
from jaxvision.tasks.sampling import AS_TRAINED, Sampling, row_keys

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_PATH = "path"  # the collection of the mean length
_STYLES = 4096  # whose mean truncation leads to


@dataclass(frozen=True)
class Adversarial(sampling.Generative, base.Task):
    """Batches carry `image` and `valid`. Images are brought to -1..1, whatever `data.mean` says.

    Parameters and batch statistics are trees with a branch for each network. A generator that has
    `styles` makes images of as many of them: `mapping` makes styles of latents, `synthesis` images.

    Attributes:
      model: the generator.
      discriminator: the network that says which images are real.
      judge: by which evaluation compares generated images with real ones.
      gradient_penalty, path_length: weights of what is learnt lazily; 0 leaves it out.
      gradient_penalty_every, path_length_every: steps between two such updates.
      path_length_shrink: how many times smaller than a batch theirs is.
      path_length_decay: part of a batch in the mean length.
      style_mixing: part of the images that are made of two styles.
    """

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "discriminator": ("discriminator",),
        "generator": ("generator",),
    }
    metrics: ClassVar[dict[str, Metric]] = {
        **judging.METRICS,
        "discriminator_loss": Metric("neither", fatal=True),
        "generator_loss": Metric("neither", fatal=True),
        "real_probability": Metric("neither"),
        "fake_probability": Metric("neither"),
        "gradient_penalty": Metric("neither"),
        "path_length": Metric("neither"),
    }
    main_metric: ClassVar[str] = "frechet_distance"
    settings: ClassVar[tuple[str, ...]] = ("truncation",)
    training_collections: ClassVar[tuple[str, ...]] = (_PATH,)

    model: Any
    discriminator: Any
    inputs: Inputs = field(default_factory=lambda: Inputs((0.5,), (0.5,)))
    judge: Judge = field(default_factory=Judge)
    gradient_penalty: float = 0.0
    gradient_penalty_every: int = 16
    path_length: float = 0.0
    path_length_every: int = 4
    path_length_shrink: int = 2
    path_length_decay: float = 0.01
    style_mixing: float = 0.0
    class_names: tuple[str, ...] = ()

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        own = config.generation
        inputs = Inputs((0.5,), (0.5,), Inputs.create(config, facts).augmentations)
        model = base.create_network(config, channels=config.data.channels)
        if (own.path_length or own.style_mixing) and not hasattr(model, "styles"):
            raise UserError(
                f"generation.path_length and generation.style_mixing are of networks with styles, "
                f"as stylegan2_generator; {config.model.name} has none."
            )
        return cls(
            model=model,
            discriminator=models.create(own.discriminator, **own.discriminator_options.to_dict()),
            inputs=inputs,
            judge=Judge.create(own.judge),
            gradient_penalty=own.gradient_penalty,
            gradient_penalty_every=own.gradient_penalty_every,
            path_length=own.path_length,
            path_length_every=own.path_length_every,
            path_length_shrink=own.path_length_shrink,
            path_length_decay=own.path_length_decay,
            style_mixing=own.style_mixing,
        )

    @property
    def made(self) -> tuple[int, ...]:
        return (self.model.size, self.model.size, self.model.channels)

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
        both = networks.join({"generator": dict(generator), "discriminator": dict(judge)})
        if self.path_length:
            both[_PATH] = {"mean": jnp.zeros(())}
        return both | self.judge.init(jax.random.fold_in(key, 2), wanted)

    def names_weights(self, config: "ConfigDict") -> bool:
        return bool(self.judge.weights) or super().names_weights(config)

    def load_weights(self, config: "ConfigDict", variables: Variables, read: base.Reader):
        """The generator's weights are `model.weights`."""
        if super().names_weights(config):
            own = base.load_network(config, self.model, _of("generator", variables), read)
            variables = networks.put("generator", variables, own)
        return self.judge.load(variables, read)

    def of_network(self, variables: Variables) -> Variables:
        return _of("generator", variables)

    def with_weights(
        self, name: str, weights: pretrained.Weights, variables: Variables, read: base.Reader
    ) -> Variables:
        """Of the generator alone: it makes images, and nothing judges them."""
        own = pretrained.load_into(name, self.model, weights, _of("generator", variables))
        return networks.join({"generator": own})

    def parts(self, variables: Variables) -> dict[str, Variables]:
        return {name: _of(name, variables) for name in self.groups}

    # -- one network of the two ----------------------------------------------------------------

    @property
    def _styles(self) -> int:
        """Of which an image is made; 0 of networks without."""
        return getattr(self.model, "styles", 0)

    def latents(self, keys: jax.Array) -> jax.Array:
        return sampling.normal(keys, (self.model.latent,))

    def _train(self, name: str, params: Any, model_state: Any, inputs: jax.Array):
        """(output in training mode, new model_state) of one network."""
        network = self.model if name == "generator" else self.discriminator
        own = _of(name, model_state)
        output, updated = network.apply(
            {"params": params[name], **own}, inputs, train=True, mutable=list(own)
        )
        return output.astype(jnp.float32), networks.put(name, model_state, updated)

    def _fake(self, params: Any, model_state: Any, key: jax.Array, rows: int):
        """(generated images, new model_state) in training mode."""
        if self._styles:
            styles, noise = self._drawn_styles(params, model_state, key, rows)
            return self._synthesis(params, model_state, styles, noise), model_state
        latent = self.latents(row_keys(key, rows))
        return self._train("generator", params, model_state, latent)

    def _drawn_styles(self, params: Any, model_state: Any, key: jax.Array, rows: int):
        """(styles [b, n, z], noise); of some images the later styles are others than the first."""
        first, second, which, noise = jax.random.split(key, 4)
        own = {"params": params["generator"], **_of("generator", model_state)}

        def styles(key: jax.Array) -> jax.Array:
            latent = self.latents(row_keys(key, rows))
            return self.model.apply(own, latent, method="mapping")

        place = jnp.arange(self._styles)[None, :, None]
        chosen = jnp.repeat(styles(first)[:, None], self._styles, 1)
        if self.style_mixing:
            mixed, start = jax.random.split(which)
            begins = jax.random.randint(start, (rows, 1, 1), 1, self._styles)
            two = jax.random.bernoulli(mixed, self.style_mixing, (rows, 1, 1))
            chosen = jnp.where(two & (place >= begins), styles(second)[:, None], chosen)
        return chosen, self.model.noise(row_keys(noise, rows))

    def _synthesis(self, params: Any, model_state: Any, styles: jax.Array, noise: Any) -> jax.Array:
        own = {"params": params["generator"], **_of("generator", model_state)}
        return self.model.apply(own, styles, noise, method="synthesis").astype(jnp.float32)

    def _generate(
        self, variables: Variables, latents: jax.Array, keys: jax.Array, truncation: float = 1.0
    ) -> jax.Array:
        """float32 [b, h, w, c] in -1..1, in evaluation mode."""
        own = _of("generator", variables)
        if not self._styles:
            return base.apply_eval(self.model, own, truncation * latents)
        style = self.model.apply(own, latents, method="mapping")
        if truncation != 1:
            others = self.latents(row_keys(jax.random.key(0), _STYLES))
            mean = self.model.apply(own, others, method="mapping").mean(0)
            style = mean + truncation * (style - mean)
        styles = jnp.repeat(style[:, None], self._styles, 1)
        images = self.model.apply(own, styles, self.model.noise(keys), method="synthesis")
        return images.astype(jnp.float32)

    # -- training --------------------------------------------------------------------------------

    def step(self, state: Any, batch: Batch, key: jax.Array, update: base.Update):
        judging_key, penalty_key, generating_key, path_key = jax.random.split(key, 4)

        def discriminating(params: Any, model_state: Any, batch: Batch, key: jax.Array):
            augment_key, fake_key = jax.random.split(key)
            real = self.inputs.train(batch, augment_key)["image"]
            fake, model_state = self._fake(state.params, model_state, fake_key, len(real))
            of_real, model_state = self._train("discriminator", params, model_state, real)
            of_fake, model_state = self._train("discriminator", params, model_state, fake)
            loss = jnp.mean(jax.nn.softplus(-of_real)) + jnp.mean(jax.nn.softplus(of_fake))
            sums = {
                "discriminator_loss": _mean(loss),
                "real_probability": _mean(jax.nn.sigmoid(of_real).mean()),
                "fake_probability": _mean(jax.nn.sigmoid(of_fake).mean()),
            }
            return loss, (model_state, sums)

        gradient, (model_state, sums) = update.gradients(
            "discriminator", discriminating, state, batch, judging_key
        )
        state = update("discriminator", gradient, state.replace(model_state=model_state))
        if self.gradient_penalty:
            due = state.step % self.gradient_penalty_every == 0
            state, more = update.when(
                due, "discriminator", self.gradient_loss, state, batch, penalty_key
            )
            sums |= more

        def generating(params: Any, model_state: Any, batch: Batch, key: jax.Array):
            fake, model_state = self._fake(params, model_state, key, len(batch["image"]))
            of_fake, model_state = self._train("discriminator", state.params, model_state, fake)
            loss = jnp.mean(jax.nn.softplus(-of_fake))
            return loss, (model_state, {"generator_loss": _mean(loss)})

        gradient, (model_state, more) = update.gradients(
            "generator", generating, state, batch, generating_key
        )
        state = update("generator", gradient, state.replace(model_state=model_state))
        if self.path_length:
            due = state.step % self.path_length_every == 0
            state, path = update.when(due, "generator", self.path_loss, state, batch, path_key)
            more |= path
        return state, {**more, **sums}

    def gradient_loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        """R1 of a batch, for as many steps as it stands for."""
        real = self.inputs.train(batch, key)["image"]

        def logit(real: jax.Array) -> jax.Array:
            return self._train("discriminator", params, model_state, real)[0].sum()

        penalty = jnp.square(jax.grad(logit)(real)).sum((1, 2, 3)).mean()
        loss = self.gradient_penalty / 2 * self.gradient_penalty_every * penalty
        return loss, (model_state, {"gradient_penalty": _mean(penalty)})

    def path_loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        """How much lengths of the Jacobian differ from their mean, for as many steps."""
        style_key, direction_key = jax.random.split(key)
        rows = max(1, len(batch["image"]) // self.path_length_shrink)
        styles, noise = self._drawn_styles(params, model_state, style_key, rows)

        def along(styles: jax.Array) -> jax.Array:
            images = self._synthesis(params, model_state, styles, noise)
            direction = sampling.normal(row_keys(direction_key, rows), images.shape[1:])
            return jnp.sum(images * direction) / jnp.sqrt(1.0 * images.shape[1] * images.shape[2])

        return self.path_penalty(jax.grad(along)(styles), model_state)

    def path_penalty(self, gradient: jax.Array, model_state: Any):
        """(loss, (new model_state, sums)) of the gradients by styles [b, n, z]."""
        lengths = jnp.sqrt(jnp.square(gradient).sum(2).mean(1))
        before = model_state[_PATH]["mean"]
        mean = before + self.path_length_decay * (lengths.mean() - before)
        penalty = jnp.square(lengths - mean).mean()
        loss = self.path_length * self.path_length_every * penalty
        state = {**model_state, _PATH: {"mean": jax.lax.stop_gradient(mean)}}
        return loss, (state, {"path_length": _mean(lengths.mean())})

    # -- evaluation and use ----------------------------------------------------------------------

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        """Rows: what the judge compares of the real images and of as many generated ones."""
        real = self.inputs.evaluate(batch["image"])
        keys = row_keys(key, len(real))
        fake = self._generate(variables, self.latents(keys), keys)
        own = _of("discriminator", variables)
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
        return sums, self.judge.rows(variables, *((images + 1) / 2 for images in (real, fake)))

    def score(self, rows: Mapping[str, Any]) -> dict[str, float]:
        return self.judge.scores(rows)

    def scores(self) -> tuple[str, ...]:
        return self.judge.names

    def generate(
        self,
        variables: Variables,
        latents: jax.Array,
        keys: jax.Array,
        labels: jax.Array | None = None,
        settings: Sampling = AS_TRAINED,
    ) -> jax.Array:
        images = self._generate(variables, latents, keys, settings.truncation)
        return sampling.as_pixels((images + 1) / 2)


def _of(name: str, variables: Variables) -> Variables:
    """One network's own variables."""
    return networks.part(name, variables, (judging.COLLECTION, _PATH))


def _mean(value: jax.Array) -> Mean:
    return Mean.of(value, jnp.ones(()))
