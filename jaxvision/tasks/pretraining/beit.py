"""BEiT: Bao et al., BEiT: BERT Pre-Training of Image Transformers, 2021.

https://arxiv.org/abs/2106.08254. Blocks of patches are hidden, and the network says which tokens
they are of. Tokens are those of a discrete autoencoder, which is never trained: any network with a
method `tokens(image)` that gives int32 [b, rows, columns] for images in 0..1, and an attribute
`codes`, how many different ones there are. With a further method `pictures(tokens)` that gives
images in 0..1, what the network says is shown.

The tokenizer sees the augmented image, resized from the network's; the authors' crops the
photograph once more at its own size.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvision import models, pretrained
from jaxvision.errors import UserError
from jaxvision.layers.patches import from_patches, patch_grid, to_patches
from jaxvision.losses import Ratio, cross_entropy, masked_ratio
from jaxvision.metrics import Mean
from jaxvision.ops.masking import hidden_blocks
from jaxvision.ops.resize import resize
from jaxvision.tasks import base, kept
from jaxvision.tasks.base import Sums, Variables
from jaxvision.tasks.pretraining.reconstruction import Question, Reconstruction, takes
from jaxvision.tasks.sampling import row_keys

if TYPE_CHECKING:
    from ml_collections import ConfigDict

COLLECTION = "tokenizer"


@dataclass(frozen=True)
class Tokenizer:
    """What says which tokens images are made of; its variables are the collection `tokenizer`.

    Attributes:
      model: the network.
      name: of it in the registry.
      weights: that it has.
      size: side in pixels of what it is shown; 0 shows images as they are.
    """

    model: Any
    name: str
    weights: str = ""
    size: int = 0

    @classmethod
    def create(cls, keys: "ConfigDict") -> Self:
        """As the keys `pretraining.tokenizer` say.

        Raises:
          UserError: no such network or option, or one that gives no tokens.
        """
        if not keys.network:
            raise UserError(
                "BEiT learns to say tokens: pretraining.tokenizer.network names the network that "
                "gives them, pretraining.tokenizer.weights its trained weights."
            )
        model = models.create(keys.network, **keys.options.to_dict())
        if not (hasattr(model, "tokens") and hasattr(model, "codes")):
            able = [n for n in models.names() if hasattr(models.variant(n).module, "tokens")]
            raise UserError(
                f"{keys.network} gives no tokens, as a tokenizer should; these do: "
                f"{', '.join(able) or 'none'}."
            )
        return cls(model, keys.network, keys.weights, keys.size)

    def _shown(self, pixels: Float[Array, "b h w c"]) -> Float[Array, "b s t c"]:
        if self.size and pixels.shape[1:3] != (self.size, self.size):
            small = resize(pixels, (self.size, self.size), "bicubic", antialias=True)
            return jnp.clip(small, 0, 1)
        return pixels

    def init(self, key: jax.Array, shape: tuple[int, ...]) -> Variables:
        return kept.fresh(COLLECTION, self.model, self.size, key, shape)

    def load(self, variables: Variables, read: base.Reader) -> Variables:
        """`variables` with the tokenizer's trained ones.

        Raises:
          UserError: its weights cannot be had or do not fit.
        """
        if not self.weights:
            return variables
        return kept.filled(COLLECTION, self.name, self.model, self.weights, variables, read)

    def tokens(
        self, variables: Variables, pixels: Float[Array, "b h w c"], grid: tuple[int, int]
    ) -> Int[Array, "b n"]:
        """One for each patch of images in 0..1.

        Raises:
          UserError: there are not as many tokens as patches.
        """
        found = self.model.apply(variables[COLLECTION], self._shown(pixels), method="tokens")
        if found.shape[1:] != grid:
            raise UserError(
                f"The tokenizer {self.name} gives {found.shape[1]}x{found.shape[2]} tokens of an "
                f"image, the network has {grid[0]}x{grid[1]} patches: set "
                "--config.pretraining.tokenizer.size, or the patches' size."
            )
        return found.reshape(len(found), -1)


@dataclass(frozen=True)
class BeitPretraining(Reconstruction):
    """`token_accuracy` is the part of the hidden patches whose token is the likeliest.

    Attributes:
      tokenizer: see `Tokenizer`.
      hidden_patches: how many of an image are hidden at most.
      least_block: patches of the smallest block.
    """

    APART: ClassVar[tuple[str, ...]] = (COLLECTION,)

    tokenizer: Tokenizer = Tokenizer(None, "")
    hidden_patches: int = 75
    least_block: int = 16

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        task = super().create(config, facts)
        codes = task.tokenizer.model.codes
        if task.model.codes != codes:
            raise UserError(
                f"The tokenizer {task.tokenizer.name} has {codes} tokens, {config.model.name} says "
                f"one of {task.model.codes}: set --config.model.options.codes={codes}."
            )
        if not takes(task.model.encoder, "mask_token"):
            raise UserError(
                f"{config.model.name} wants an encoder in which a token can take the place of "
                f"patches, as beit_base_patch16_224; in {type(task.model.encoder).__name__} none "
                "can."
            )
        return task

    @classmethod
    def own_fields(cls, config: "ConfigDict") -> dict[str, Any]:
        own = config.pretraining
        return {
            "tokenizer": Tokenizer.create(own.tokenizer),
            "hidden_patches": own.hidden_patches,
            "least_block": own.least_block,
        }

    # -- variables -------------------------------------------------------------------------------

    def init(self, key: jax.Array, spec: base.Spec) -> Variables:
        own, of_tokenizer = jax.random.split(key)
        network = super().init(own, spec)
        return network | self.tokenizer.init(of_tokenizer, spec["image"].shape[1:])

    def notes(self, config: "ConfigDict") -> list[str]:
        if self.tokenizer.weights:
            return []
        return [f"The tokenizer {self.tokenizer.name} has random weights."]

    def names_weights(self, config: "ConfigDict") -> bool:
        return bool(self.tokenizer.weights) or super().names_weights(config)

    def load_weights(self, config: "ConfigDict", variables: Variables, read: base.Reader):
        if super().names_weights(config):
            own = base.load_network(config, self.model, self.of_network(variables), read)
            variables = {**variables, **own}
        return self.tokenizer.load(variables, read)

    def with_weights(
        self, name: str, weights: pretrained.Weights, variables: Variables, read: base.Reader
    ) -> Variables:
        own = pretrained.load_into(name, self.model, weights, self.of_network(variables))
        return self.tokenizer.load({**variables, **own}, read)

    # -- what is asked ---------------------------------------------------------------------------

    @property
    def _patch(self) -> int:
        return self.model.encoder.patch_size

    def ask(self, image: Float[Array, "b h w c"], key: jax.Array) -> Question:
        grid = patch_grid(image.shape, self._patch)
        if self.hidden_patches > grid[0] * grid[1]:
            raise UserError(
                f"pretraining.hidden_patches={self.hidden_patches}, but images have "
                f"{grid[0]}x{grid[1]} patches."
            )

        def blocks(key: jax.Array) -> Array:
            return hidden_blocks(key, grid, self.hidden_patches, self.least_block)

        hidden = jax.vmap(blocks)(row_keys(key, image.shape[0])).reshape(image.shape[0], -1)
        return Question(image, {"hidden": hidden}, hidden)

    def cost(
        self,
        answer: Array,
        image: Float[Array, "b h w c"],
        question: Question,
        valid: Bool[Array, " b"],
        model_state: Any,
    ) -> tuple[Ratio, Sums]:
        grid = patch_grid(image.shape, self._patch)
        tokens = self.tokenizer.tokens(model_state, self.inputs.pixels(image), grid)
        counted = question.hidden & valid[:, None]
        right = jnp.argmax(answer, -1) == tokens
        losses, weights = cross_entropy(answer, tokens)
        sums = {"token_accuracy": Mean.of(right, counted)}
        return masked_ratio(losses, weights, counted), sums

    def shown(
        self, answer: Array, image: Float[Array, "b h w c"], question: Question, model_state: Any
    ) -> dict[str, Float[Array, "b h w c"]]:
        """Hidden patches are grey; a reconstruction is of the likeliest tokens of hidden ones."""
        grid, hidden = patch_grid(image.shape, self._patch), question.hidden
        patches = jnp.where(hidden[..., None], 0.0, to_patches(image, self._patch))
        found = {"hidden": from_patches(patches, grid, self._patch)}
        if hasattr(self.tokenizer.model, "pictures"):
            true = self.tokenizer.tokens(model_state, self.inputs.pixels(image), grid)
            said = jnp.where(hidden, jnp.argmax(answer, -1), true).reshape(-1, *grid)
            own = model_state[COLLECTION]
            pixels = self.tokenizer.model.apply(own, said, method="pictures")
            if pixels.shape[1:3] != image.shape[1:3]:
                pixels = resize(pixels, image.shape[1:3])
            mean, std = jnp.asarray(self.inputs.mean), jnp.asarray(self.inputs.std)
            found["reconstruction"] = (pixels - mean) / std
        return found
