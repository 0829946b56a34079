"""LeNet-5: LeCun et al., Gradient-based learning applied to document recognition, 1998.

https://doi.org/10.1109/5.726791. Reference: `mmpretrain.models.LeNet5`, which like every modern
reading connects all maps of S2 to C3 (the paper's sparse table has 60,000 weights, this 61,706),
pools by plain averages and ends in a linear layer in place of radial basis functions.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import avg_pool2d


class LeNet5(nn.Module):
    """Three 5x5 convolutions with tanh, the first two pooled, then two linear layers.

    Takes 32x32 images (28x28 ones are padded by two); other sizes change C5's output map and are
    averaged over it.
    """

    num_classes: int = 10
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b k"]:
        if image.shape[1:3] == (28, 28):
            image = jnp.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)))
        if min(image.shape[1:3]) < 32:
            raise UserError(
                f"LeNet-5 takes images of 28x28, or of 32x32 or more; not {image.shape[1:3]}."
            )
        conv = lambda width, index: Conv2d(  # noqa: E731
            width, 5, padding=0, dtype=self.dtype, name=f"features_{index}"
        )
        x = avg_pool2d(jnp.tanh(conv(6, 0)(image)), 2)
        x = avg_pool2d(jnp.tanh(conv(16, 3)(x)), 2)
        x = jnp.tanh(conv(120, 6)(x)).mean((1, 2))
        x = jnp.tanh(nn.Dense(84, dtype=self.dtype, name="classifier_0")(x))
        return Head(self.num_classes, dtype=self.dtype, name="classifier_2")(x)


VARIANTS = {
    "lenet5": Variant(
        LeNet5,
        {},
        "mmpretrain.models.LeNet5(10)",
        (32, 32, 1),
        "LeCun et al. 1998, https://doi.org/10.1109/5.726791",
        classifier=("classifier.2",),
        first="features.0",
    )
}
