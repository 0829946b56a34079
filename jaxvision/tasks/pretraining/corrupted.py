"""Learning from images that were corrupted: denoising autoencoders and context encoders.

Vincent et al., Extracting and Composing Robust Features with Denoising Autoencoders, 2008,
https://doi.org/10.1145/1390156.1390294; salt and pepper, and Gaussian noise: Vincent et al.,
Stacked Denoising Autoencoders, 2010, https://jmlr.org/papers/v11/vincent10a.html. Pathak et al.,
Context Encoders: Feature Learning by Inpainting, 2016, https://arxiv.org/abs/1604.07379, without
the adversary. Both learn by the squared error of normalised pixels.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvision.losses import Ratio
from jaxvision.losses.reconstruction import weighted_pixel_error
from jaxvision.metrics import Mean
from jaxvision.ops.masking import hidden_centre, hidden_squares
from jaxvision.tasks.base import Sums
from jaxvision.tasks.pretraining.reconstruction import Question, Reconstruction
from jaxvision.tasks.sampling import row_keys

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def corrupt(
    pixels: Float[Array, "b h w c"], key: jax.Array, kind: str, amount: float
) -> Float[Array, "b h w c"]:
    """Pixels in 0..1 with noise, each value by itself.

    Args:
      pixels: of images.
      key: of the noise.
      kind: "masking", values that are 0; "salt_and_pepper", that are 0 or 1 as may be; "gaussian",
        noise that is added.
      amount: part of the values; of Gaussian noise its standard deviation.
    """
    of_which, of_what = jax.random.split(key)
    if kind == "gaussian":
        return pixels + amount * jax.random.normal(of_what, pixels.shape)
    changed = jax.random.bernoulli(of_which, amount, pixels.shape)
    extreme = jnp.zeros_like(pixels)
    if kind == "salt_and_pepper":
        extreme = jax.random.bernoulli(of_what, 0.5, pixels.shape).astype(pixels.dtype)
    return jnp.where(changed, extreme, pixels)


@dataclass(frozen=True)
class _Pixels(Reconstruction):
    """Networks that say pixels. `psnr` is that of the hidden ones."""

    def cost(
        self,
        answer: Array,
        image: Float[Array, "b h w c"],
        question: Question,
        valid: Bool[Array, " b"],
        model_state: Any,
    ) -> tuple[Ratio, Sums]:
        error = jnp.square((answer - image) * jnp.asarray(self.inputs.std)).mean(-1)
        hidden = question.hidden
        of_image = jnp.where(hidden, error, 0).sum((1, 2)) / jnp.maximum(hidden.sum((1, 2)), 1)
        sums = {"psnr": Mean.of(-10 * jnp.log10(of_image), valid)}
        weights = hidden.astype(jnp.float32) if question.weights is None else question.weights
        return weighted_pixel_error(answer, image, weights, valid), sums

    def shown(
        self, answer: Array, image: Float[Array, "b h w c"], question: Question, model_state: Any
    ) -> dict[str, Float[Array, "b h w c"]]:
        said = jnp.where(question.hidden[..., None], answer, image)
        return {"hidden": question.image, "reconstruction": said}


@dataclass(frozen=True)
class Denoising(_Pixels):
    """Attributes: `kind` and `amount` of the noise; see `corrupt`."""

    kind: str = "masking"
    amount: float = 0.25

    @classmethod
    def own_fields(cls, config: "ConfigDict") -> dict[str, Any]:
        own = config.pretraining
        return {"kind": own.corruption, "amount": own.corruption_amount}

    def ask(self, image: Float[Array, "b h w c"], key: jax.Array) -> Question:
        noisy = corrupt(self.inputs.pixels(image), key, self.kind, self.amount)
        normalised = (noisy - jnp.asarray(self.inputs.mean)) / jnp.asarray(self.inputs.std)
        return Question(normalised, {}, jnp.ones(image.shape[:3], bool))


@dataclass(frozen=True)
class Context(_Pixels):
    """What is cut out has the mean colour, 0 when normalised.

    Attributes:
      squares: how many are cut out; 0 cuts out the centre.
      side: of what is cut out, as part of the image's.
      overlap: pixels around it that are learnt too.
      overlap_weight: how much more these count.
    """

    squares: int = 0
    side: float = 0.5
    overlap: int = 4
    overlap_weight: float = 10.0

    @classmethod
    def own_fields(cls, config: "ConfigDict") -> dict[str, Any]:
        own = config.pretraining
        return {
            "squares": own.context_squares,
            "side": own.context_side,
            "overlap": own.context_overlap,
            "overlap_weight": own.context_overlap_weight,
        }

    def ask(self, image: Float[Array, "b h w c"], key: jax.Array) -> Question:
        hidden, region = (self._cut_out(image.shape, key, border) for border in (0, self.overlap))
        weights = jnp.where(hidden, 1.0, jnp.where(region, self.overlap_weight, 0.0))
        return Question(jnp.where(hidden[..., None], 0.0, image), {}, hidden, weights)

    def _cut_out(self, shape: tuple[int, ...], key: jax.Array, border: int) -> Bool[Array, "b h w"]:
        """What is, and so much around it."""
        size = (shape[1], shape[2])
        if not self.squares:
            centre = jnp.asarray(hidden_centre(size, self.side, border))
            return jnp.broadcast_to(centre, shape[:3])
        side = max(1, round(min(size) * self.side))

        def squares(key: jax.Array) -> Array:
            return hidden_squares(key, size, self.squares, side, border)

        return jax.vmap(squares)(row_keys(key, shape[0]))
