"""Autoencoders with a posterior over codes: Kingma and Welling 2013.

Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114, with the weight beta of Higgins et
al. 2017 (https://openreview.net/forum?id=Sy2fzU9gl).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from jaxvision.losses import free_nats, gaussian_kl, masked_ratio
from jaxvision.metrics import Mean
from jaxvision.metrics.codes import ActiveUnits
from jaxvision.models.autoencoding.posterior import Posterior
from jaxvision.tasks import sampling
from jaxvision.tasks.autoencoding.task import Autoencoding, Coded, Progress
from jaxvision.tasks.base import Batch, Sums, Variables

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclass(frozen=True)
class Variational(Autoencoding):
    """The code is a posterior; a draw of it is decoded in training, its mean in use.

    `kl` is the divergence of the posterior from the prior N(0, 1). `elbo` is the lower bound of the
    logarithm of an image's likelihood by one draw of the posterior, so the higher the better: minus
    the nats of its pixels, minus `kl`. It is below 0 of a Bernoulli; a Gaussian's is of a density.

    Attributes:
      beta: weight of the posterior's divergence.
      free: nats of it a latent variable may have for nothing.
    """

    main_metric: ClassVar[str] = "elbo"
    settings: ClassVar[tuple[str, ...]] = ("truncation",)

    beta: float = 1.0
    free: float = 0.0

    @classmethod
    def own_fields(cls, config: "ConfigDict") -> dict[str, Any]:
        own = config.autoencoding
        return {"beta": own.beta, "free": own.free_bits}

    def _train_code(
        self, network: Any, image: jax.Array, valid: jax.Array, key: jax.Array, progress: Progress
    ) -> Coded:
        posterior = _in_float32(network.encode(image, train=True))
        each = gaussian_kl(*posterior)
        kl = each.sum(-1)
        if self.free:
            cost = free_nats(each, valid, self.free)
        else:
            cost = masked_ratio(kl, jnp.ones_like(kl), valid)
        sums = {"kl": Mean.of(kl, valid), "active_units": ActiveUnits.of(each, valid)}
        return Coded(posterior.sample(key), {"kl": cost.scaled(self.beta)}, sums)

    def notes(self, config: "ConfigDict") -> list[str]:
        parts = config.optimizer.accumulate
        if parts == 1 or not self.free:
            return []
        return [f"optimizer.accumulate={parts}: free bits of each micro-batch, not of the batch"]

    def _latent(self, variables: Variables, code: Any) -> jax.Array:
        return code.mean

    def _code_metrics(
        self, variables: Variables, code: Any, nll: jax.Array, batch: Batch, key: jax.Array
    ) -> Sums:
        code, valid, pixels = _in_float32(code), batch["valid"], self.inputs.pixels(batch["image"])
        drawn = self._apply(variables, code.sample(key), method="decode")
        nll = self.likelihood.nll(drawn, pixels, variables["params"])
        each = gaussian_kl(*code)
        kl = each.sum(-1)
        return {
            "loss": Mean.of(nll + self.beta * kl, valid),
            "active_units": ActiveUnits.of(each, valid),
            **self._bound(nll, kl, pixels, valid),
        }

    def _code_outputs(self, variables: Variables, code: Any) -> dict[str, jax.Array]:
        return {"kl": gaussian_kl(*_in_float32(code)).sum(-1)}

    def latents(self, keys: jax.Array) -> jax.Array:
        return sampling.normal(keys, self.model.latent_shape)


def _in_float32(posterior: Posterior) -> Posterior:
    return Posterior(*(part.astype(jnp.float32) for part in posterior))
