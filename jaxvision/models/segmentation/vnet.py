"""V-Net: Milletari et al., Fully Convolutional Networks for Volumetric Segmentation, 2016.

https://arxiv.org/abs/1606.04797. Reference: `monai.networks.nets.VNet` in 3-D, which deviates from
the paper: batch normalisation, ELU, dropout of whole channels, and one to three convolutions in a
stage where the paper has up to three everywhere (`depths=(1, 2, 3, 3, 3)` and
`up_depths=(3, 3, 2, 1)`). Volumes are [b, d, h, w, c]; those whose sides are no multiple of 16 are
padded at the end, and the logits cut back.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv3d, ConvTranspose3d
from jaxvision.layers.images import pad_to_multiple
from jaxvision.layers.normalization import BatchNorm
from jaxvision.models.variant import Variant

Volume = Float[Array, "b d h w c"]


class ConvNorm(nn.Module):
    """A 5x5x5 convolution and batch normalisation, MONAI's `Convolution`."""

    features: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Volume, train: bool) -> Float[Array, "b d h w o"]:
        x = Conv3d(self.features, 5, use_bias=False, dtype=self.dtype, name="conv")(x)
        return BatchNorm(dtype=self.dtype, name="adn.N")(x, train)


class ConvNormAct(nn.Module):
    """The same with ELU, of as many channels as come in."""

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Volume, train: bool) -> Volume:
        return nn.elu(ConvNorm(x.shape[-1], self.dtype, name="conv_block")(x, train))


class Input(nn.Module):
    """A convolution; to its output the volume is added, repeated over the channels."""

    features: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Volume, train: bool) -> Float[Array, "b d h w o"]:
        y = ConvNorm(self.features, self.dtype, name="conv_block")(x, train)
        repeated = jnp.tile(x, -(-self.features // x.shape[-1]))
        return nn.elu(y + repeated[..., : self.features])


class Down(nn.Module):
    """Halves the volume, doubles the channels, and learns a residual.

    Attributes:
      depth: how many 5x5x5 convolutions the residual has.
      dropout: of channels before them.
    """

    depth: int
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Volume, train: bool) -> Float[Array, "b i j k o"]:
        features = 2 * x.shape[-1]
        x = Conv3d(features, 2, 2, 0, use_bias=False, dtype=self.dtype, name="down_conv")(x)
        down = nn.elu(BatchNorm(dtype=self.dtype, name="bn1")(x, train))
        x = _drop(self.dropout, train)(down)
        for index in range(self.depth):
            x = ConvNormAct(self.dtype, name=f"ops_{index}")(x, train)
        return nn.elu(x + down)


class Up(nn.Module):
    """Doubles the volume, joins what the other path had there, and learns a residual.

    Attributes:
      features: channels of the output, half of them from either.
      depth: how many 5x5x5 convolutions the residual has.
      dropout: of channels of what comes from below.
      skip_dropout: of channels of what comes from the other path.
    """

    features: int
    depth: int
    dropout: float = 0.0
    skip_dropout: float = 0.5
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x: Volume, skip: Float[Array, "b i j k s"], train: bool
    ) -> Float[Array, "b i j k o"]:
        x = _drop(self.dropout, train)(x)
        x = ConvTranspose3d(self.features // 2, 2, 2, dtype=self.dtype, name="up_conv")(x)
        x = nn.elu(BatchNorm(dtype=self.dtype, name="bn1")(x, train))
        joined = x = jnp.concatenate([x, _drop(self.skip_dropout, train)(skip)], axis=-1)
        for index in range(self.depth):
            x = ConvNormAct(self.dtype, name=f"ops_{index}")(x, train)
        return nn.elu(x + joined)


def _drop(rate: float, train: bool) -> nn.Dropout:
    return nn.Dropout(rate, broadcast_dims=(1, 2, 3), deterministic=not train)


class VNet(nn.Module):
    """A path that halves four times and one that doubles, with skip connections and residuals.

    Returns logits [b, d, h, w, num_classes], or with no classes the last volume before them.

    Attributes:
      width: channels of the first stage, doubled at every halving.
      depths: convolutions of each stage on the way down; of the first it is one.
      up_depths: on the way up.
      dropout: of channels: of the skip connections, and at the two coarsest halvings and doublings.
    """

    num_classes: int = 2
    width: int = 16
    depths: tuple[int, ...] = (1, 1, 2, 3, 2)
    up_depths: tuple[int, ...] = (2, 2, 1, 1)
    dropout: float = 0.5
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image: Volume, train: bool = False) -> Float[Array, "b d h w k"]:
        size, levels = image.shape[1:4], len(self.depths) - 1
        x = pad_to_multiple(image, 2**levels)
        x = Input(self.width, self.dtype, name="in_tr")(x, train)
        skips = []
        for level, depth in enumerate(self.depths[1:], start=1):
            skips.append(x)
            dropout = self.dropout if level > levels - 2 else 0.0
            name = f"down_tr{self._channels(level)}"
            x = Down(depth, dropout, self.dtype, name=name)(x, train)
        for index, depth in enumerate(self.up_depths):
            features = self._channels(levels - index)
            dropout = self.dropout if index < 2 else 0.0
            up = Up(
                features * self.width // 16,
                depth,
                dropout,
                self.dropout,
                self.dtype,
                name=f"up_tr{features}",
            )
            x = up(x, skips.pop(), train)
        if self.num_classes:
            x = Output(self.num_classes, self.dtype, name="out_tr")(x, train)
        return x[:, : size[0], : size[1], : size[2]]

    def _channels(self, level: int) -> int:
        """The channels of a stage in the published network, after which the reference names it."""
        return 16 * 2**level


class Output(nn.Module):
    """A 5x5x5 convolution to the classes, and a 1x1x1 one between them."""

    num_classes: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Volume, train: bool) -> Float[Array, "b d h w k"]:
        x = nn.elu(ConvNorm(self.num_classes, self.dtype, name="conv_block")(x, train))
        return Conv3d(self.num_classes, 1, dtype=self.dtype, name="conv2")(x)


VARIANTS = {
    "vnet": Variant(
        VNet,
        {},
        "monai VNet(3, 1, 2)",
        (64, 64, 64, 1),
        "Milletari et al. 2016, https://arxiv.org/abs/1606.04797",
        classifier=("out_tr.conv_block.conv", "out_tr.conv_block.adn.N", "out_tr.conv2"),
        first="in_tr.conv_block.conv",
    )
}
