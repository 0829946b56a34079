"""SRGAN's discriminator: Ledig et al., Photo-Realistic Single Image Super-Resolution ..., 2017.

https://arxiv.org/abs/1609.04802, figure 4. Reference: `Discriminator` of
tests/parity/networks/srgan.py. It gives a logit, where the paper's network ends in a sigmoid.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import BatchNorm
from jaxvision.models.variant import Variant


class Discriminator(nn.Module):
    """Images [b, h, w, c] in 0..1 to a logit [b]: is it a photograph? All of one size.

    Attributes:
      width: channels of the first map; each stride doubles them, up to eight times.
      hidden: width of the layer before the last.
    """

    width: int = 64
    hidden: int = 1024
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], train: bool = False) -> Float[Array, " b"]:
        x, layer = image, 0
        for times in (1, 2, 4, 8):
            for stride in (1, 2):
                x = Conv2d(
                    times * self.width, 3, stride, dtype=self.dtype, name=f"features_{layer}"
                )(x)
                layer += 1
                if layer > 1:
                    x = BatchNorm(dtype=self.dtype, name=f"features_{layer}")(x, train)
                    layer += 1
                x = nn.leaky_relu(x, 0.2)
                layer += 1
        # The reference flattens channels first.
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        x = nn.leaky_relu(Dense(self.hidden, dtype=self.dtype, name="classifier_0")(x), 0.2)
        return Dense(1, dtype=self.dtype, name="classifier_2")(x)[:, 0]


VARIANTS = {
    "srgan_discriminator": Variant(
        Discriminator,
        {},
        "tests/parity/networks/srgan.py Discriminator()",
        (96, 96, 3),
        "Ledig et al. 2017, https://arxiv.org/abs/1609.04802",
        first="features.0",
    ),
}
