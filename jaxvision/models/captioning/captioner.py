"""What captioning networks have in common: how they are called in training and in decoding."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxvision.models.variant import Variant
from jaxvision.ops.decoding import Cache

Memory = dict[str, Array]
Found = Float[Array, "b t v"] | dict[str, Array]


class Captioner(nn.Module):
    """An encoder of images, and a `decoder` that scores the next token after those before it.

    Called with tokens [b, t], the begin and the words after it, it gives the logits of the tokens
    that follow each, [b, t, num_classes]; in training a dict with these as `logits` and whatever
    else has a loss.

    To decode, by `model.apply(variables, ..., method=...)`: `encode(image)` gives the memory, a
    dict of arrays; `start(memory, length)` the cache of sequences of at most so many tokens;
    `step(cache, token)` the logits of the next token and the new cache. See `ops.decoding` for what
    a cache is. The logits are those of a call with all tokens.

    Attributes:
      num_classes: tokens of the vocabulary.
      encoder: gives feature maps, of which the last is used.
      dtype: what is computed in; None is what input and parameters promote to.
      norm_features: whether the features of each place, or token, are brought to mean 0 and
        variance 1: those of encoders without norms, as SqueezeNet and VGG are, may have any scale,
        and saturate what reads them.
    """

    ENDS: ClassVar[tuple[str, ...]] = ("classes",)

    num_classes: int = 1000
    encoder: Any = None
    dtype: jnp.dtype | None = None
    norm_features: bool = False

    def __call__(
        self,
        image: Float[Array, "b h w c"],
        tokens: Int[Array, "b t"] | None = None,
        train: bool = False,
    ) -> Found:
        """Scores.

        Args:
          image: normalised images.
          tokens: the begin and what was said; without them token 0 alone, to draw variables by.
          train: whether dropout acts, and what only training needs is returned.
        """
        if tokens is None:
            tokens = jnp.zeros((image.shape[0], 1), jnp.int32)
        found = self.decoder(self.encode(image, train), tokens, train)
        return found if train else found["logits"]

    def encode(self, image: Float[Array, "b h w c"], train: bool = False) -> Memory:
        return {"places": self.features(image, train)[-1]}

    def features(self, image: Float[Array, "b h w c"], train: bool) -> Any:
        """What the encoder gives: a tuple of maps [b, h, w, c], or tokens [b, n, c]."""
        found = self.encoder(image, train)
        return jax.tree.map(jax.nn.standardize, found) if self.norm_features else found

    def score(self, memory: Memory, tokens: Int[Array, "b t"]) -> Float[Array, "b t v"]:
        """The logits that follow each token, of images that were encoded."""
        return self.decoder(memory, tokens, False)["logits"]

    def start(self, memory: Memory, length: int) -> Cache:
        return self.decoder.start(memory, length)

    def step(self, cache: Cache, token: Int[Array, " b"]) -> tuple[Float[Array, "b v"], Cache]:
        return self.decoder.step(cache, token)


def recurrent(module: type[Captioner], paper: str, **options: Any) -> Variant:
    """A network of our own reference, on the maps of a ResNet-50, whose layers of words are these.

    Args:
      module: of the same name as the reference.
      paper: authors and year, and the address.
      options: fields of the module.
    """
    return Variant(
        module,
        {"encoder": "resnet50", **options},
        f"tests/parity/networks/captioning.py {module.__name__}",
        paper=paper,
        inputs=("image", "tokens"),
        classifier=("decoder.classifier", "decoder.embed"),
        first="encoder.conv1",
    )
