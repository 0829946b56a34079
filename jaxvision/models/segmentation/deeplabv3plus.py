"""DeepLab v3+: Chen et al., Encoder-Decoder with Atrous Separable Convolution, 2018.

https://arxiv.org/abs/1802.02611. Reference: segmentation_models_pytorch's `DeepLabV3Plus`. It
upsamples with aligned corners; sides that are no multiple of the stride are upsampled to the size
of the map or image that they meet.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.aspp import ASPP, SeparableConv2d
from jaxvision.layers.conv_norm import conv_norm_relu
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.normalization import BatchNorm
from jaxvision.layers.pyramid import by_stride, required
from jaxvision.models.variant import Variant
from jaxvision.ops.resize import resize


class Decoder(nn.Module):
    """The deepest map through the atrous pyramid, joined to the map of stride 4.

    Attributes:
      rates: see `ASPP`.
      width: channels of the pyramid and of the output.
      fine_width: to how many channels the map of stride 4 is reduced.
    """

    rates: tuple[int, ...] = (12, 24, 36)
    width: int = 256
    fine_width: int = 48
    dropout: float = 0.5
    dtype: Any = None

    @nn.compact
    def __call__(
        self, deep: Float[Array, "b p q d"], fine: Float[Array, "b h w c"], train: bool
    ) -> Float[Array, "b h w e"]:
        dtype, width = self.dtype, self.width
        x = ASPP(self.rates, width, True, self.dropout, dtype=dtype, name="aspp_0")(deep, train)
        x = SeparableConv2d(width, dtype=dtype, name="aspp_1")(x)
        x = nn.relu(BatchNorm(dtype=dtype, name="aspp_2")(x, train))
        x = resize(x, fine.shape[1:3], align_corners=True)
        fine = conv_norm_relu(self, self.fine_width, 1, "block1_0", "block1_1", fine, train)
        x = jnp.concatenate([x, fine], axis=-1)
        x = SeparableConv2d(width, dtype=dtype, name="block2_0")(x)
        return nn.relu(BatchNorm(dtype=dtype, name="block2_1")(x, train))


class DeepLabV3Plus(nn.Module):
    """Returns logits [b, h, w, num_classes], or with no classes the decoder's map, of stride 4.

    Attributes:
      encoder: gives feature maps, of which the one of stride 4 and the last are used.
      rates, width, fine_width, dropout: see `Decoder`.
    """

    num_classes: int = 21
    encoder: Any = None
    rates: tuple[int, ...] = (12, 24, 36)
    width: int = 256
    fine_width: int = 48
    dropout: float = 0.5
    dtype: Any = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w k"]:
        maps = self.encoder(image, train)
        (fine,) = required(by_stride(self.encoder, image, maps), (4,), "DeepLab v3+")
        form = (self.rates, self.width, self.fine_width, self.dropout)
        x = Decoder(*form, dtype=self.dtype, name="decoder")(maps[-1], fine, train)
        if not self.num_classes:
            return x
        x = Conv2d(self.num_classes, 1, dtype=self.dtype, name="segmentation_head_0")(x)
        return resize(x, image.shape[1:3], align_corners=True)


def _variant(encoder: str) -> Variant:
    return Variant(
        DeepLabV3Plus,
        {"encoder": encoder, "encoder_options": {"output_stride": 16, "dilate_first": True}},
        f"segmentation_models_pytorch DeepLabV3Plus('{encoder}')",
        paper="Chen et al. 2018, https://arxiv.org/abs/1802.02611",
        classifier=("segmentation_head.0",),
        first="encoder.conv1",
    )


VARIANTS = {
    f"deeplabv3plus_{encoder}": _variant(encoder)
    for encoder in ("resnet18", "resnet34", "resnet50", "resnet101")
}
