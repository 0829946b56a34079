"""Autoencoders with a codebook: van den Oord et al., Neural Discrete Representation Learning, 2017.

https://arxiv.org/abs/1711.00937
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxvision.losses import masked_ratio, squared_distance
from jaxvision.metrics import Mean
from jaxvision.metrics.codes import CodeUsage
from jaxvision.tasks.autoencoding.task import Autoencoding, Coded, Progress
from jaxvision.tasks.base import Batch, Sums, Variables

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclass(frozen=True)
class Quantized(Autoencoding):
    """The code is a map of entries of a codebook; gradients pass from entry to encoder as they are.

    Under a prior that is alike for all entries, `kl` is the same of every image: the number of its
    places times the logarithm of the number of entries.

    Attributes:
      commitment: weight of the distance of an encoder from its codebook.
    """

    commitment: float = 0.25

    @classmethod
    def own_fields(cls, config: "ConfigDict") -> dict[str, Any]:
        return {"commitment": config.autoencoding.commitment}

    def _train_code(
        self, network: Any, image: jax.Array, valid: jax.Array, key: jax.Array, progress: Progress
    ) -> Coded:
        code = network.encode(image, train=True).astype(jnp.float32)
        found = network.quantize(code, train=True)
        commitment = squared_distance(code, lax.stop_gradient(found.vectors))
        one = jnp.ones_like(commitment)
        costs = {"commitment": masked_ratio(commitment, one, valid).scaled(self.commitment)}
        if not network.moving_average:
            codebook = squared_distance(lax.stop_gradient(code), found.vectors)
            costs["codebook"] = masked_ratio(codebook, one, valid)
        sums = {
            "commitment": Mean.of(commitment, valid),
            "usage": CodeUsage.of(found.indices, valid, network.codes),
        }
        return Coded(code + lax.stop_gradient(found.vectors - code), costs, sums)

    def notes(self, config: "ConfigDict") -> list[str]:
        parts = config.optimizer.accumulate
        if parts == 1 or not self.model.moving_average:
            return []
        return [f"optimizer.accumulate={parts}: the codebook moves with each micro-batch"]

    def _quantized(self, variables: Variables, code: jax.Array) -> Any:
        return self._apply(variables, code.astype(jnp.float32), method="quantize")

    def _latent(self, variables: Variables, code: Any) -> jax.Array:
        return self._quantized(variables, code).vectors

    def _code_metrics(
        self, variables: Variables, code: Any, nll: jax.Array, batch: Batch, key: jax.Array
    ) -> Sums:
        found, valid = self._quantized(variables, code), batch["valid"]
        commitment = squared_distance(code, found.vectors)
        share = self.commitment + (0 if self.model.moving_average else 1)
        places = math.prod(found.indices.shape[1:])
        kl = jnp.full_like(nll, places * math.log(self.model.codes))
        return {
            "loss": Mean.of(nll + share * commitment, valid),
            "commitment": Mean.of(commitment, valid),
            "usage": CodeUsage.of(found.indices, valid, self.model.codes),
            **self._bound(nll, kl, self.inputs.pixels(batch["image"]), valid),
        }

    def _code_outputs(self, variables: Variables, code: Any) -> dict[str, jax.Array]:
        return {"codes": self._quantized(variables, code).indices}
