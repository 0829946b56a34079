"""DeconvNet: Noh et al., Learning Deconvolution Network for Semantic Segmentation, 2015.

https://arxiv.org/abs/1505.04366. No package has it; the reference is
tests/parity/networks/deconvnet.py, which follows the paper's table 2 with the batch normalisation
of its section 4. Images larger than 224x224 have more than one place in the middle; the authors
feed proposals of that size instead.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d, ConvTranspose2d
from jaxvision.layers.images import check_size
from jaxvision.layers.normalization import BatchNorm
from jaxvision.models.variant import Variant
from jaxvision.ops.unpooling import max_pool2d_with_switches, max_unpool2d_by_switches


class Unit(nn.Module):
    """A convolution, or a transposed one with stride 1, batch normalisation and ReLU.

    Attributes:
      transposed: which of the two.
      padding: zeros on all sides, or what is cropped from them.
    """

    features: int
    kernel_size: int = 3
    transposed: bool = False
    padding: int = 1
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        layer = ConvTranspose2d if self.transposed else Conv2d
        name = "deconv" if self.transposed else "conv"
        x = layer(self.features, self.kernel_size, 1, self.padding, dtype=self.dtype, name=name)(x)
        return nn.relu(BatchNorm(dtype=self.dtype, name="bn")(x, train))


class DeconvNet(nn.Module):
    """VGG-16 down to one place, and its mirror: unpooling and transposed convolutions.

    Returns logits [b, h, w, num_classes], or with no classes the last map.

    Attributes:
      channels: of each stage.
      depths: how many convolutions each has, and transposed ones its mirror.
      width: what these channels are multiplied by.
      hidden: channels of what were its linear layers.
      window: rows and columns of the last map that go into the first of these; 7 are an image of
        224x224.
    """

    num_classes: int = 21
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    width: float = 1.0
    hidden: int = 4096
    window: int = 7
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w k"]:
        check_size(image, self.window * 2 ** len(self.depths), "DeconvNet")
        channels = [max(1, round(c * self.width)) for c in self.channels]
        x, pooled = image, []
        for stage, (features, depth) in enumerate(zip(channels, self.depths, strict=True), 1):
            for index in range(depth):
                x = Unit(features, dtype=self.dtype, name=f"conv{stage}_{index}")(x, train)
            size = x.shape[1:3]
            x, switches = max_pool2d_with_switches(x)
            pooled.append((switches, size))
        x = Unit(self.hidden, self.window, False, 0, self.dtype, name="fc6")(x, train)
        x = Unit(self.hidden, 1, False, 0, self.dtype, name="fc7")(x, train)
        x = Unit(channels[-1], self.window, True, 0, self.dtype, name="fc6_deconv")(x, train)
        # Each stage's last layer makes the channels of the stage below.
        below = [channels[0], *channels[:-1]]
        for level in reversed(range(len(channels))):
            x = max_unpool2d_by_switches(x, *pooled[level])
            widths = [channels[level]] * (self.depths[level] - 1) + [below[level]]
            for index, width in enumerate(widths):
                name = f"deconv{level + 1}_{index}"
                x = Unit(width, 3, True, 1, self.dtype, name=name)(x, train)
        if not self.num_classes:
            return x
        return Conv2d(self.num_classes, 1, dtype=self.dtype, name="score")(x)


VARIANTS = {
    "deconvnet": Variant(
        DeconvNet,
        {},
        "tests/parity/networks/deconvnet.py DeconvNet",
        (224, 224, 3),
        "Noh et al. 2015, https://arxiv.org/abs/1505.04366",
        classifier=("score",),
        first="conv1.0.conv",
    )
}
