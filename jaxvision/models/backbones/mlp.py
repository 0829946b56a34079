"""Multi-layer perceptron on flattened images.

Reference: `torchvision.ops.MLP`. Rosenblatt 1958; Rumelhart et al., Learning representations by
back-propagating errors, 1986 (https://doi.org/10.1038/323533a0).
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.head import Head, flatten
from jaxvision.layers.linear import Dense
from jaxvision.models.variant import Variant


class MLP(nn.Module):
    """Flatten (channels first, as PyTorch), then linear layers with ReLU and dropout between.

    The reference's dropout on its output is left out: it would drop whole logits.

    Attributes:
      hidden: widths of the hidden layers.
    """

    num_classes: int = 10
    hidden: Sequence[int] = (100,)
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b k"]:
        x = flatten(image)
        for index, width in enumerate(self.hidden):
            # Linear, ReLU and Dropout take one index each in the reference's nn.Sequential.
            x = Dense(width, dtype=self.dtype, name=str(3 * index))(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return Head(self.num_classes, dtype=self.dtype, name=str(3 * len(self.hidden)))(x)


def _mlp(hidden: Sequence[int], shape: tuple[int, int, int]) -> Variant:
    inputs = shape[0] * shape[1] * shape[2]
    return Variant(
        MLP,
        {"hidden": hidden},
        f"torchvision.ops.MLP({inputs}, {[*hidden, 10]})",
        shape,
        "Rumelhart et al. 1986, https://doi.org/10.1038/323533a0",
        classifier=(str(3 * len(hidden)),),
        first="0",
    )


VARIANTS = {
    "linear": _mlp((), (28, 28, 1)),
    "mlp": _mlp((100,), (32, 32, 3)),
    "mlp_256x2": _mlp((256, 256), (28, 28, 1)),
}
