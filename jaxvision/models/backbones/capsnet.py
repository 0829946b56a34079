"""CapsNet: Sabour et al., Dynamic Routing Between Capsules, 2017.

https://arxiv.org/abs/1710.09829. No package has it; the reference is
tests/parity/networks/capsnet.py. As in the authors' code, and as the paper says nothing else,
gradients go through all routing iterations; its digit capsules' biases, which the paper has not,
are left out. Trained with `classification.loss="margin"`; the decoder wants images in [0, 1].
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.images import check_size
from jaxvision.layers.linear import Dense
from jaxvision.layers.parameters import parameter
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import global_average_pool

_SMALLEST = 17
_TINY = 1e-8


def _length(s: Float[Array, "*b d"]) -> Float[Array, "*b 1"]:
    return jnp.sqrt(jnp.sum(jnp.square(s), -1, keepdims=True) + _TINY)


def squash(s: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Shrinks a vector's length n to n^2 / (1 + n^2): equation 1."""
    length = _length(s)
    return length / (1 + jnp.square(length)) * s


def dynamic_routing(votes: Float[Array, "b i k d"], iterations: int) -> Float[Array, "b k d"]:
    """Procedure 1: capsules k of the votes of capsules i, by agreement.

    Args:
      votes: what capsule i predicts that capsule k is.
      iterations: how often the coupling of the capsules is computed; at 1 it is uniform.
    """
    agreement = jnp.zeros(votes.shape[:3], votes.dtype)
    for iteration in range(iterations):
        coupling = jax.nn.softmax(agreement)
        capsules = squash(jnp.einsum("bik,bikd->bkd", coupling, votes))
        if iteration < iterations - 1:
            agreement += jnp.einsum("bikd,bkd->bik", votes, capsules)
    return capsules


class CapsNet(nn.Module):
    """Two 9x9 convolutions, the second of capsules, and one capsule a class; logits are lengths.

    Its first image's size decides that of `digit_caps`. In training with a decoder, calling it
    gives `{"logits", "reconstruction"}`.

    Attributes:
      width: channels of the first convolution.
      types: of primary capsules, at every place of their map.
      primary: dimensions of a primary capsule.
      capsule: dimensions of a class's capsule.
      routing: iterations of the routing.
      decoder: whether there are three linear layers that reconstruct the image.
    """

    num_classes: int = 10
    width: int = 256
    types: int = 32
    primary: int = 8
    capsule: int = 16
    routing: int = 3
    decoder: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b h w c"],
        train: bool = False,
        label: Shaped[Array, "b ..."] | None = None,
    ) -> Float[Array, "b k"] | dict[str, Float[Array, "b ..."]]:
        """The lengths of the capsules, between 0 and 1.

        Args:
          image: of 17x17 or more.
          train: whether to reconstruct, if there is a decoder.
          label: of the capsules to reconstruct from: class indices or probabilities [b, k]. Without
            it, it is the longest capsule.
        """
        check_size(image, _SMALLEST, "CapsNet")
        x = nn.relu(Conv2d(self.width, 9, padding=0, dtype=self.dtype, name="conv1")(image))
        x = Conv2d(self.types * self.primary, 9, 2, 0, dtype=self.dtype, name="primary")(x)
        if not self.num_classes:
            return global_average_pool(x)
        # As PyTorch flattens: type, row, column.
        x = x.reshape(*x.shape[:3], self.types, self.primary).transpose(0, 3, 1, 2, 4)
        x = squash(x.reshape(x.shape[0], -1, self.primary))
        transform = Transform(self.num_classes, self.capsule, self.dtype, name="digit_caps")
        capsules = dynamic_routing(transform(x), self.routing)
        logits = _length(capsules)[..., 0]
        if not self.decoder or not (train or self.is_initializing()):
            return logits
        label = logits.argmax(-1) if label is None else label
        mask = jax.nn.one_hot(label, self.num_classes) if label.ndim == 1 else label
        x = (capsules * mask[..., None].astype(capsules.dtype)).reshape(x.shape[0], -1)
        for index, width in enumerate((512, 1024)):
            x = nn.relu(Dense(width, dtype=self.dtype, name=f"decoder_{2 * index}")(x))
        pixels = Dense(math.prod(image.shape[1:]), dtype=self.dtype, name="decoder_4")(x)
        reconstruction = nn.sigmoid(pixels).reshape(image.shape)
        return {"logits": logits, "reconstruction": reconstruction} if train else logits


class Transform(nn.Module):
    """A matrix for each pair of a capsule below and one above: what the one votes for.

    Attributes:
      capsules: how many there are above.
      dimensions: of each of those.
    """

    capsules: int
    dimensions: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b i p"]) -> Float[Array, "b i k d"]:
        shape = (x.shape[1], self.capsules, x.shape[2], self.dimensions)
        weight = parameter(self, "weight", nn.initializers.normal(0.1), shape, jnp.float32)
        x, weight = nn.dtypes.promote_dtype(x, weight, dtype=self.dtype)
        return jnp.einsum("bip,ikpd->bikd", x, weight)


def _variant(**options: object) -> Variant:
    return Variant(
        CapsNet,
        options,
        "tests/parity/networks/capsnet.py CapsNet",
        (28, 28, 1),
        "Sabour et al. 2017, https://arxiv.org/abs/1710.09829",
        classifier=("digit_caps", "decoder.0") if options else ("digit_caps",),
        first="conv1",
        inputs=("image", "label"),
    )


VARIANTS = {"capsnet": _variant(), "capsnet_decoder": _variant(decoder=True)}
