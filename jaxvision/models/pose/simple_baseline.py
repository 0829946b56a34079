"""Simple baselines: Xiao et al., Simple Baselines for Human Pose Estimation and Tracking, 2018.

https://arxiv.org/abs/1804.06208: transposed convolutions on the last map of an encoder. Reference:
`PoseResNet` of microsoft/human-pose-estimation.pytorch, whose ResNet lies beside the head in the
state_dict; ours, which may be any encoder, is `encoder`.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d, ConvTranspose2d
from jaxvision.layers.normalization import BatchNorm
from jaxvision.models.variant import Variant
from jaxvision.state_dict import StateDict

_HEAD = ("deconv_layers.", "final_layer.")
_small = nn.initializers.normal(0.001)


class SimpleBaseline(nn.Module):
    """Doubles an encoder's last map by each transposed convolution, then scores each place.

    Returns heat maps [b, h, w, num_classes], or with no classes the last map.

    Attributes:
      num_classes: number of key points.
      encoder: gives feature maps; the last one is used.
      widths: channels of the transposed convolutions, 4x4 with stride 2; three of them make heat
        maps of stride 4 of an encoder of stride 32.
    """

    num_classes: int = 17
    encoder: Any = None
    widths: tuple[int, ...] = (256, 256, 256)
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b i j k"]:
        x = self.encoder(image, train)[-1]
        for index, width in enumerate(self.widths):
            place = 3 * index  # a convolution, a norm and a ReLU are entries of one Sequential
            deconv = ConvTranspose2d(
                width, 4, 2, 1, 0, False, self.dtype, _small, name=f"deconv_layers_{place}"
            )
            norm = BatchNorm(dtype=self.dtype, name=f"deconv_layers_{place + 1}")
            x = nn.relu(norm(deconv(x), train))
        if not self.num_classes:
            return x
        score = Conv2d(
            self.num_classes, 1, dtype=self.dtype, kernel_init=_small, name="final_layer"
        )
        return score(x)


def to_reference(state: StateDict) -> StateDict:
    """Brings the reference's names to ours, where the encoder is a part of its own."""
    known = (*_HEAD, "encoder.")
    return {
        name if name.startswith(known) else f"encoder.{name}": value
        for name, value in state.items()
    }


def from_reference(state: StateDict) -> StateDict:
    """The inverse of `to_reference`."""
    return {name.removeprefix("encoder."): value for name, value in state.items()}


def _variant(encoder: str) -> Variant:
    return Variant(
        SimpleBaseline,
        {"encoder": encoder},
        "microsoft/human-pose-estimation.pytorch "
        f"PoseResNet({encoder.removeprefix('resnet')} layers)",
        (256, 192, 3),
        "Xiao et al. 2018, https://arxiv.org/abs/1804.06208",
        classifier=("final_layer",),
        first="encoder.conv1",
        convert=to_reference,
        export=from_reference,
    )


VARIANTS = {f"simple_baseline_{e}": _variant(e) for e in ("resnet50", "resnet101", "resnet152")}
