"""Diffusion: Ho et al., Denoising Diffusion Probabilistic Models, 2020.

https://arxiv.org/abs/2006.11239. Each image of a batch gets the noise of a timestep that is drawn
for it, and the network learns what was added. Samples are made of noise by the samplers of
`jaxvision.ops.diffusion`, with classifier-free guidance where classes are known (Ho and Salimans
2022, https://arxiv.org/abs/2207.12598).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxvision.errors import UserError
from jaxvision.losses import Objective, masked_ratio
from jaxvision.losses import diffusion as losses
from jaxvision.metrics import Mean
from jaxvision.ops import diffusion
from jaxvision.tasks import base, judging, sampling
from jaxvision.tasks.base import Batch, Metric, Sums, Variables
from jaxvision.tasks.diffusion.keys import KEYS
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.judging import Judge
from jaxvision.tasks.sampling import AS_TRAINED, Control, Sampling, row_keys

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_MADE = "made"  # which rows of an evaluation have a sample


@dataclass(frozen=True)
class Sampler:
    """How samples are made; see `diffusion.*` among the keys, and `jaxvision.ops.diffusion`."""

    name: str = "ddim"
    steps: int = 50
    guidance: float = 1.0
    eta: float = 0.0
    large_variance: bool = False
    clip: bool = True
    clipped_noise: bool = True
    jump: int = 10
    repeats: int = 10


@dataclass(frozen=True)
class Diffusion(sampling.Generative, base.Task):
    """Batches carry `image`, `valid` and, where classes count, `label`. Images become -1..1.

    Attributes:
      size: height and width of the images.
      channels: of the images.
      schedule: of the noise.
      prediction: what the network says; see `ops.diffusion.PREDICTIONS`.
      min_snr: gamma of the loss's weights; 0 is none.
      conditional: whether the network is told classes.
      label_dropout: how often it is not, in training.
      sampler: how samples are made.
      judge: by which evaluation compares samples with real images.
      judge_samples: for each evaluation batch; -1 is as many as it has rows.
      judge_steps: of the sampler, for these.
    """

    annotations: ClassVar[tuple[str, ...]] = ("label",)
    metrics: ClassVar[dict[str, Metric]] = {
        "loss": Metric("lower", fatal=True),
        "bits_per_dimension": Metric("lower"),
        **judging.METRICS,
    }
    main_metric: ClassVar[str] = "bits_per_dimension"
    settings: ClassVar[tuple[str, ...]] = ("labels", "guidance", "steps", "sampler")

    model: nn.Module
    inputs: Inputs = field(default_factory=lambda: Inputs((0.5,), (0.5,)))
    class_names: tuple[str, ...] = ()
    size: tuple[int, int] = (32, 32)
    channels: int = 3
    schedule: diffusion.Schedule = field(default_factory=lambda: diffusion.noise_schedule("linear"))
    prediction: str = "epsilon"
    min_snr: float = 0.0
    conditional: bool = False
    label_dropout: float = 0.1
    sampler: Sampler = Sampler()
    judge: Judge = field(default_factory=Judge)
    judge_samples: int = 0
    judge_steps: int = 50

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        own, channels = config.diffusion, config.data.channels
        names = facts.class_names
        if own.conditional and not names:
            raise UserError(
                "The data have no classes: set diffusion.conditional=False, or take others."
            )
        size = (own.size, own.size) if isinstance(own.size, int) else tuple(own.size)
        return cls(
            model=base.create_network(
                config, **({"classes": len(names)} if own.conditional else {})
            ),
            inputs=Inputs((0.5,), (0.5,), Inputs.create(config, facts).augmentations, len(names)),
            class_names=names,
            size=size,
            channels=channels,
            schedule=diffusion.noise_schedule(own.schedule, own.steps),
            prediction=own.prediction,
            min_snr=own.min_snr,
            conditional=own.conditional,
            label_dropout=own.label_dropout,
            sampler=Sampler(
                own.sampler,
                own.sampler_steps,
                own.guidance,
                own.eta,
                own.large_variance,
                own.clip,
                own.clipped_noise,
                own.jump,
                own.repeats,
            ),
            judge=Judge.create(own.judge),
            judge_samples=own.judge_samples,
            judge_steps=own.judge_steps or own.sampler_steps,
        )

    def init(self, key: jax.Array, spec: base.Spec) -> Variables:
        shape = tuple(spec["image"].shape[1:])
        if shape[:2] != self.size:
            have, want = ("x".join(map(str, sides)) for sides in (shape[:2], self.size))
            fitting = shape[0] if shape[0] == shape[1] else shape[:2]
            raise UserError(
                f"The data have images of {have}; set diffusion.size={fitting}, or resize them to "
                f"{want}."
            )
        return super().init(key, spec) | self.judge.init(jax.random.fold_in(key, 1), shape)

    def names_weights(self, config: "ConfigDict") -> bool:
        return bool(self.judge.weights) or super().names_weights(config)

    def load_weights(
        self, config: "ConfigDict", variables: Variables, read: base.Reader
    ) -> Variables:
        loaded = base.load_network(config, self.model, _networks(variables), read)
        return self.judge.load({**variables, **loaded}, read)

    def parts(self, variables: Variables) -> dict[str, Variables]:
        return {"model": _networks(variables)}

    # -- training ----------------------------------------------------------------------------------

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        augment_key, time_key, noise_key, drop_key, dropout_key = jax.random.split(key, 5)
        batch = self.inputs.train(batch, augment_key)
        x0, rows = batch["image"], len(batch["image"])
        timestep = jax.random.randint(time_key, (rows,), 0, self.schedule.steps)
        noise = jax.random.normal(noise_key, x0.shape)
        alpha_bar = jnp.asarray(self.schedule.alpha_bars)[timestep]
        inputs: dict[str, Any] = {"timestep": timestep}
        if self.conditional:
            dropped = jax.random.bernoulli(drop_key, self.label_dropout, (rows,))
            inputs["label"] = jnp.where(dropped, len(self.class_names), self._labels(batch))
        output, updated = base.apply_train(
            self.model,
            params,
            _networks(model_state),
            diffusion.add_noise(x0, noise, alpha_bar),
            dropout_key,
            **inputs,
        )
        error = losses.denoising_loss(self.prediction, output, x0, noise, alpha_bar, self.min_snr)
        mean = masked_ratio(error, jnp.ones(rows), batch["valid"])
        return Objective({"noise": mean}), ({**model_state, **updated}, {})

    def _labels(self, batch: Batch) -> Int[Array, " b"]:
        """Raises:
        UserError: there are none, or augmentation mixed them.
        """
        if "label" not in batch or "label_probs" in batch:
            raise UserError(
                "diffusion.conditional wants one label an image: data that have labels, and no "
                "augmentation that mixes images."
            )
        return batch["label"]

    # -- use ---------------------------------------------------------------------------------------

    def _output(
        self,
        variables: Variables,
        x: Float[Array, "b h w c"],
        timestep: Array,
        label: Int[Array, " b"] | None = None,
        guidance: float = 1.0,
    ) -> Float[Array, "b h w c"]:
        """What the network says of images with noise, in evaluation mode."""

        def said(x: Array, *label: Array) -> Array:
            output: Any = self.model.apply(_networks(variables), x, timestep, *label)
            return output.astype(jnp.float32)

        if label is None:
            return said(x)
        if guidance == 1:
            return said(x, label)
        none = jnp.full_like(label, len(self.class_names))
        both = said(jnp.concatenate([x, x]), jnp.concatenate([label, none]))
        conditional, unconditional = jnp.split(both, 2)
        return diffusion.guided(conditional, unconditional, guidance)

    def latents(self, keys: Array) -> Float[Array, "b h w c"]:
        return sampling.normal(keys, (*self.size, self.channels))

    def controls(self) -> dict[str, Control]:
        own = self.sampler
        found = {
            "steps": Control(own.steps, 1, self.schedule.steps - (own.name == "dpm++"), 1),
            "sampler": Control(own.name, choices=KEYS["sampler"].choices),
        }
        if self.conditional:
            found["guidance"] = Control(own.guidance, 0, 10, 0.5)
            found["labels"] = Control("", choices=self.class_names)
        return found

    def _sampler(self, settings: Sampling) -> tuple[Sampler, diffusion.Steps]:
        """What is asked for, or configured; and its table.

        Raises:
          UserError: there is no such sampler or step, or guidance without classes.
        """
        own = self.sampler
        wanted = replace(
            own,
            name=settings.sampler or own.name,
            steps=settings.steps or own.steps,
            guidance=own.guidance if settings.guidance is None else settings.guidance,
        )
        if wanted.guidance != 1 and not self.conditional:
            raise UserError(
                "Guidance leads towards a class, and this network was trained without "
                "(diffusion.conditional=False)."
            )
        table = diffusion.sampler_steps(
            wanted.name,
            self.schedule,
            wanted.steps,
            eta=wanted.eta,
            large_variance=wanted.large_variance,
        )
        return wanted, table

    def _classes(self, keys: Array, labels: Int[Array, " b"] | None) -> Int[Array, " b"] | None:
        """Those of samples, drawn where they are not given.

        Raises:
          UserError: they are given to a network that knows none.
        """
        if not self.conditional:
            if labels is not None:
                raise UserError(
                    "This network was trained without classes (diffusion.conditional=False)."
                )
            return None
        if labels is not None:
            return labels
        draw = lambda key: jax.random.randint(key, (), 0, len(self.class_names))  # noqa: E731
        return jax.vmap(draw)(_fold(keys, 0))

    def generate(
        self,
        variables: Variables,
        latents: Float[Array, "b h w c"],
        keys: Array,
        labels: Int[Array, " b"] | None = None,
        settings: Sampling = AS_TRAINED,
    ) -> UInt8[Array, "b h w c"]:
        """Images of noise; see `sampling.Generative`. The sampler is one loop on the device."""
        wanted, table = self._sampler(settings)
        classes, shape = self._classes(keys, labels), latents.shape[1:]
        images = diffusion.sample(
            table,
            lambda x, timestep: self._output(variables, x, timestep, classes, wanted.guidance),
            latents,
            lambda number: sampling.normal(_fold(keys, number + 1), shape),
            self.prediction,
            wanted.clip,
            wanted.clipped_noise,
        )
        return sampling.as_pixels((images + 1) / 2)

    def inpaint(
        self,
        variables: Variables,
        images: UInt8[Array, "b h w c"],
        masks: Bool[Array, "b h w"],
        keys: Array,
        labels: Int[Array, " b"] | None = None,
        settings: Sampling = AS_TRAINED,
    ) -> UInt8[Array, "b h w c"]:
        """What could stand where masks are True, by RePaint; see `ops.diffusion.inpaint`."""
        wanted, table = self._sampler(settings)
        classes, shape = self._classes(keys, labels), images.shape[1:]
        made = diffusion.inpaint(
            table,
            lambda x, timestep: self._output(variables, x, timestep, classes, wanted.guidance),
            self.latents(keys),
            self.inputs.evaluate(images),
            masks[..., None],
            lambda number: sampling.normal(_fold(keys, number + 1), shape),
            wanted.jump,
            wanted.repeats,
            self.prediction,
            wanted.clip,
            wanted.clipped_noise,
        )
        return sampling.as_pixels((made + 1) / 2)

    # -- evaluation --------------------------------------------------------------------------------

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        """Each image is looked at three times: at a timestep of its own, and twice for the bound.

        Timesteps are one of each of as many equal parts as the batch has rows. Rows, where samples
        are compared: features of the real images and of the samples.
        """
        loss_key, bound_key, noise_key, sample_key = jax.random.split(key, 4)
        x0, valid = self.inputs.evaluate(batch["image"]), batch["valid"]
        label = self._labels(batch) if self.conditional else None
        noises = jax.random.normal(noise_key, (3, *x0.shape))
        rows, steps = len(x0), self.schedule.steps

        def parts(key: jax.Array) -> jax.Array:
            """Numbers in 0..1, one of each of as many parts."""
            return (jnp.arange(rows) + jax.random.uniform(key, (rows,))) / rows

        evenly = jnp.minimum((parts(loss_key) * steps).astype(jnp.int32), steps - 1)
        later, chance = losses.bound_timesteps(self.schedule, parts(bound_key))
        found = []
        for timestep, noise in zip((evenly, later, jnp.zeros(rows, jnp.int32)), noises):
            alpha_bar = jnp.asarray(self.schedule.alpha_bars)[timestep]
            x = diffusion.add_noise(x0, noise, alpha_bar)
            output = self._output(variables, x, timestep, label)
            found.append((output, x, alpha_bar))
        loss = losses.denoising_loss(
            self.prediction, found[0][0], x0, noises[0], found[0][2], self.min_snr
        )
        seen = [
            jnp.clip(diffusion.clean_and_noise(self.prediction, *one)[0], -1, 1) for one in found
        ]
        bound = (
            losses.prior_divergence(self.schedule, x0)
            + losses.step_divergence(self.schedule, later, x0, seen[1]) / chance
            + losses.decoder_loss(self.schedule, x0, seen[2])
        )
        bits = bound / (np.prod(x0.shape[1:]) * np.log(2))
        sums = {"loss": Mean.of(loss, valid), "bits_per_dimension": Mean.of(bits, valid)}
        return sums, self._judged(variables, (x0 + 1) / 2, sample_key)

    def _judged(
        self, variables: Variables, real: Float[Array, "b h w c"], key: Array
    ) -> dict[str, Array]:
        """What the judge compares, and which of the rows have a sample."""
        rows = len(real)
        count = rows if self.judge_samples < 0 else min(self.judge_samples, rows)
        if not count:
            return {}
        keys, settings = row_keys(key, count), Sampling(steps=self.judge_steps)
        fake = self.generate(variables, self.latents(keys), keys, None, settings)
        found = self.judge.rows(variables, real, fake.astype(jnp.float32) / 255)

        def filled(array: Array) -> Array:
            return jnp.pad(array, ((0, rows - len(array)), *[(0, 0)] * (array.ndim - 1)))

        return {
            **{name: filled(array) for name, array in found.items()},
            _MADE: jnp.arange(rows) < count,
        }

    def score(self, rows: Mapping[str, Any]) -> dict[str, float]:
        """How far samples are from real images; see `judging.Judge.scores`."""
        made = rows[_MADE]
        return self.judge.scores(
            {
                name: array if name.startswith("real") else array[made]
                for name, array in rows.items()
                if name != _MADE
            }
        )

    def scores(self) -> tuple[str, ...]:
        return self.judge.names


def _networks(variables: Variables) -> Variables:
    """Those of the diffusion network alone."""
    return {kind: tree for kind, tree in variables.items() if kind != judging.COLLECTION}


def _fold(keys: Array, number: Array | int) -> Array:
    """Another key of each."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
