"""Discrete VAEs, whose codes are tokens: Ramesh et al., Zero-Shot Text-to-Image Generation, 2021.

https://arxiv.org/abs/2102.12092, section 2.1. The posterior of each place is a distribution over
the entries of a codebook, the prior one that is alike for all. In training the decoder is given a
draw that is relaxed by a temperature (Jang et al. 2016, https://arxiv.org/abs/1611.01144), so that
gradients pass; in use the likeliest entry.
"""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from jaxvision.errors import UserError
from jaxvision.losses import masked_ratio, uniform_kl
from jaxvision.metrics import Mean
from jaxvision.metrics.codes import CodeUsage
from jaxvision.tasks import base
from jaxvision.tasks.autoencoding.task import Autoencoding, Coded, Progress
from jaxvision.tasks.base import Batch, Sums, Variables

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclass(frozen=True)
class Tokens(Autoencoding):
    """The code is the logits of each place's entries.

    `kl` is the divergence of the posterior from the prior; `elbo` is the lower bound of the
    logarithm of an image's likelihood by one draw of the posterior, as of `Variational`.

    Attributes:
      beta: weight of the divergence, once it has risen from 0.
      beta_warmup: the share of the training in which it rises, by half a cosine.
      temperature: of the draws, at first.
      final_temperature: of the draws, after `annealing`.
      annealing: the share of the training in which the temperature falls, by half a cosine.
    """

    main_metric: ClassVar[str] = "elbo"

    beta: float = 1.0
    beta_warmup: float = 0.0
    temperature: float = 1.0
    final_temperature: float = 1 / 16
    annealing: float = 1.0

    @classmethod
    def own_fields(cls, config: "ConfigDict") -> dict[str, Any]:
        if any(config.data.mean) or set(config.data.std) != {1.0}:
            raise UserError(
                f"{config.model.name} takes images from 0 to 1: set data.mean=(0.0,) and "
                "data.std=(1.0,)."
            )
        names = ("beta", "beta_warmup", "temperature", "final_temperature", "annealing")
        return {name: config.autoencoding[name] for name in names}

    def schedules(self, progress: Progress) -> tuple[jax.Array, jax.Array]:
        """(temperature, weight of the divergence) where this share of the training is over."""
        annealed = progress / self.annealing
        risen = progress / self.beta_warmup if self.beta_warmup else 1.0
        return (
            base.cosine(self.temperature, self.final_temperature, annealed),
            base.cosine(0.0, self.beta, risen),
        )

    def step(self, state: Any, batch: Batch, key: jax.Array, update: base.Update):
        loss = functools.partial(self.loss, progress=state.step / update.total)
        gradient, (model_state, sums) = update.gradients("main", loss, state, batch, key)
        return update("main", gradient, state.replace(model_state=model_state)), sums

    def _train_code(
        self, network: Any, image: jax.Array, valid: jax.Array, key: jax.Array, progress: Progress
    ) -> Coded:
        temperature, beta = self.schedules(progress)
        logits = network.encode(image, train=True).astype(jnp.float32)
        drawn = (logits + jax.random.gumbel(key, logits.shape)) / temperature
        kl = uniform_kl(logits)
        cost = masked_ratio(kl, jnp.ones_like(kl), valid)
        sums = {
            "kl": Mean.of(kl, valid),
            "usage": CodeUsage.of(logits.argmax(-1), valid, network.codes),
            "temperature": Mean.of(temperature, jnp.ones(())),
        }
        return Coded(jax.nn.softmax(drawn), {"kl": cost.scaled(beta)}, sums)

    def _latent(self, variables: Variables, code: Any) -> jax.Array:
        return jax.nn.one_hot(code.argmax(-1), self.model.codes)

    def _code_metrics(
        self, variables: Variables, code: Any, nll: jax.Array, batch: Batch, key: jax.Array
    ) -> Sums:
        code, valid = code.astype(jnp.float32), batch["valid"]
        pixels = self.inputs.pixels(batch["image"])
        drawn = jax.nn.one_hot(jax.random.categorical(key, code), self.model.codes)
        output = self._apply(variables, drawn, method="decode")
        nll = self.likelihood.nll(output, pixels, variables["params"])
        kl = uniform_kl(code)
        return {
            "loss": Mean.of(nll + self.beta * kl, valid),
            "usage": CodeUsage.of(code.argmax(-1), valid, self.model.codes),
            **self._bound(nll, kl, pixels, valid),
        }

    def _code_outputs(self, variables: Variables, code: Any) -> dict[str, jax.Array]:
        return {
            "codes": code.argmax(-1).astype(jnp.int32),
            "kl": uniform_kl(code.astype(jnp.float32)),
        }

    def features(self, variables: Variables, image: jax.Array) -> jax.Array:
        """How often each entry stands in an image, float32 [b, codes]."""
        code = self._apply(variables, self.inputs.evaluate(image), method="encode")
        return self._latent(variables, code).mean((1, 2))
