"""MAE: He et al., Masked Autoencoders Are Scalable Vision Learners, 2021.

https://arxiv.org/abs/2111.06377. The encoder sees a quarter of the patches, drawn anew for each
image; the decoder says the pixels of all, and those of hidden ones are learnt.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvision.errors import UserError
from jaxvision.layers.patches import from_patches, patch_grid, to_patches
from jaxvision.losses import Ratio
from jaxvision.losses.reconstruction import hidden_patch_error, patch_statistics
from jaxvision.metrics import Mean
from jaxvision.ops.masking import hidden_patches, kept_patches
from jaxvision.tasks.base import Sums
from jaxvision.tasks.pretraining.reconstruction import Question, Reconstruction, takes

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclass(frozen=True)
class Mae(Reconstruction):
    """`psnr` is that of the hidden patches' pixels.

    Where a network says standardised pixels, they are brought back by the mean and deviation of the
    patch itself, as it does not say these.

    Attributes:
      mask_ratio: part of the patches that is hidden.
      normalized_pixels: whether the pixels of a patch are standardised before they are learnt.
    """

    POOL: ClassVar[str] = "token"  # the authors' linear probe

    mask_ratio: float = 0.75
    normalized_pixels: bool = True

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        task = super().create(config, facts)
        if not takes(task.model.encoder, "kept"):
            raise UserError(
                f"{config.model.name} wants an encoder that can be told which patches to see, as "
                f"vit_small_patch16_224; {type(task.model.encoder).__name__} cannot."
            )
        return task

    @classmethod
    def own_fields(cls, config: "ConfigDict") -> dict[str, Any]:
        own = config.pretraining
        return {"mask_ratio": own.mask_ratio, "normalized_pixels": own.normalized_pixels}

    @property
    def _patch(self) -> int:
        return self.model.encoder.patch_size

    def ask(self, image: Float[Array, "b h w c"], key: jax.Array) -> Question:
        rows, columns = patch_grid(image.shape, self._patch)
        patches = rows * columns
        count = int(patches * (1 - self.mask_ratio))
        if not count:
            raise UserError(
                f"pretraining.mask_ratio={self.mask_ratio} leaves none of {patches} patches to see."
            )
        kept = kept_patches(jax.random.uniform(key, (image.shape[0], patches)), count)
        return Question(image, {"kept": kept}, hidden_patches(kept, patches))

    def cost(
        self,
        answer: Array,
        image: Float[Array, "b h w c"],
        question: Question,
        valid: Bool[Array, " b"],
        model_state: Any,
    ) -> tuple[Ratio, Sums]:
        wanted = to_patches(image, self._patch)
        deviation = jnp.asarray(self.inputs.std)
        scale = to_patches(jnp.broadcast_to(deviation, image.shape), self._patch)
        found = self._as_pixels(answer, wanted)
        error = jnp.square(scale * (found - wanted)).mean(-1)
        of_image = jnp.where(question.hidden, error, 0).sum(1) / question.hidden.sum(1)
        sums = {"psnr": Mean.of(-10 * jnp.log10(of_image), valid)}
        if self.normalized_pixels:
            mean, spread = patch_statistics(wanted)
            wanted = (wanted - mean) / spread
        return hidden_patch_error(answer, wanted, question.hidden, valid), sums

    def _as_pixels(self, answer: Array, patches: Array) -> Array:
        if not self.normalized_pixels:
            return answer
        mean, spread = patch_statistics(patches)
        return answer * spread + mean

    def shown(
        self, answer: Array, image: Float[Array, "b h w c"], question: Question, model_state: Any
    ) -> dict[str, Float[Array, "b h w c"]]:
        """Hidden patches are grey in what was seen, and the network's in the reconstruction."""
        patches, hidden = to_patches(image, self._patch), question.hidden[..., None]
        found = {
            "hidden": jnp.where(hidden, 0.0, patches),
            "reconstruction": jnp.where(hidden, self._as_pixels(answer, patches), patches),
        }
        grid = patch_grid(image.shape, self._patch)
        return {name: from_patches(one, grid, self._patch) for name, one in found.items()}
