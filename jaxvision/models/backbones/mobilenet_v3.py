"""MobileNetV3: Howard et al., Searching for MobileNetV3, 2019, https://arxiv.org/abs/1905.02244.

References: `torchvision.models.mobilenet_v3_large` and `mobilenet_v3_small`. As there strided
convolutions are padded alike on all sides, and not at the bottom and the right alone as in
TensorFlow.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.conv_norm import ConvNormAct
from jaxvision.layers.head import Head
from jaxvision.layers.linear import Dense
from jaxvision.layers.pyramid import doubled
from jaxvision.layers.squeeze_excite import SqueezeExcite
from jaxvision.models.backbones.mobilenet import scaled
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import global_average_pool

# A row of the paper's tables 1 and 2: kernel, widened channels, channels, whether channels are
# squeezed and excited, the activation (RE: ReLU, HS: hard swish), stride.
Row = tuple[int, int, int, bool, str, int]
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"RE": nn.relu, "HS": nn.hard_swish}
_TAIL = 3  # the blocks of the last stage

# torchvision's, which has batch norms of TensorFlow's epsilon.
conv_norm = partial(ConvNormAct, epsilon=1e-3, names=("0", "1"))


class InvertedResidual(nn.Module):
    """A 1x1 convolution that widens, a depthwise one, squeeze-and-excitation, a 1x1 that narrows.

    Where it does not widen it has no first convolution. It returns its output, to which an input of
    the same shape is added unless the row has a stride, and what it is widened to.

    Attributes:
      row: see `Row`.
      dilation: of the depthwise convolution; above 1 it takes the place of the stride.
      momentum: of batch norms.
    """

    row: Row
    dilation: int = 1
    momentum: float = 0.99
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool
    ) -> tuple[Float[Array, "b i j d"], Float[Array, "b h w e"]]:
        kernel, width, features, squeezed, act, stride = self.row
        conv = partial(conv_norm, momentum=self.momentum, dtype=self.dtype)
        wide, index = x, 0
        if width != x.shape[-1]:
            wide = conv(width, act=_ACTIVATIONS[act], name="block_0")(x, train)
            index = 1
        depthwise = conv(
            width,
            kernel,
            stride if self.dilation == 1 else 1,
            dilation=self.dilation,
            groups=width,
            act=_ACTIVATIONS[act],
            name=f"block_{index}",
        )
        y = depthwise(wide, train)
        if squeezed:
            hidden, index = scaled(width // 4), index + 1
            y = SqueezeExcite(hidden, nn.hard_sigmoid, dtype=self.dtype, name=f"block_{index}")(y)
        y = conv(features, act=None, name=f"block_{index + 1}")(y, train)
        return x + y if stride == 1 and x.shape == y.shape else y, wide


class MobileNetV3(nn.Module):
    """A strided convolution, inverted residuals, a 1x1 convolution, a mean, two linear layers.

    Attributes:
      rows: of the blocks.
      hidden: channels of the first linear layer.
      width_mult: by how much all layers are wider.
      reduced_tail: whether the last three blocks and the first linear layer have half the channels,
        as in the paper's detectors.
      output_stride: 32, or 16 or 8: later blocks are then dilated instead of strided.
      momentum: of batch norms.
      remat: recompute each block in the backward pass to save memory.
      features_only: return the maps of strides 2, 4, 8, 16 and 32, before the last convolution.
      last_conv: whether the last of them is after that convolution.
      widened: whether the others are what the strided blocks after them widen them to, as SSDLite
        takes them (section 6.3).
    """

    num_classes: int = 1000
    rows: Sequence[Row] = ()
    hidden: int = 1280
    width_mult: float = 1.0
    reduced_tail: bool = False
    output_stride: int = 32
    momentum: float = 0.99
    dropout: float = 0.2
    remat: bool = False
    features_only: bool = False
    last_conv: bool = False
    widened: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        halvings = sum(stride > 1 for *_, stride in self.rows)
        return doubled(1 + halvings, first=2, last=self.output_stride)

    def _rows(self) -> list[Row]:
        """The rows as this network has them."""
        found: list[Row] = []
        half = 2 if self.reduced_tail else 1
        for index, (kernel, width, features, squeezed, act, stride) in enumerate(self.rows):
            tail = index - len(self.rows) + _TAIL
            width = scaled(width // (half if tail > 0 else 1) * self.width_mult)
            features = scaled(features // (half if tail >= 0 else 1) * self.width_mult)
            found.append((kernel, width, features, squeezed, act, stride))
        return found

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        rows, features = self._rows(), []
        conv = partial(conv_norm, momentum=self.momentum, act=nn.hard_swish, dtype=self.dtype)
        x = conv(scaled(16 * self.width_mult), 3, 2, name="features_0")(image, train)
        block = nn.remat(InvertedResidual, static_argnums=(2,)) if self.remat else InvertedResidual
        reached = 2
        for index, row in enumerate(rows, start=1):
            stride, before = row[-1], x
            reached *= stride
            dilation = max(1, reached // self.output_stride)
            make = block(row, dilation, self.momentum, self.dtype, name=f"features_{index}")
            x, wide = make(x, train)
            if stride > 1:
                features.append(wide if self.widened else before)
        if self.features_only and not self.last_conv:
            return (*features, x)
        x = conv(6 * x.shape[-1], name=f"features_{len(rows) + 1}")(x, train)
        if self.features_only:
            return (*features, x)
        hidden = scaled(self.hidden // (2 if self.reduced_tail else 1) * self.width_mult)
        x = Dense(hidden, dtype=self.dtype, name="classifier_0")(global_average_pool(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.hard_swish(x))
        return Head(self.num_classes, dtype=self.dtype, name="classifier_3")(x)


LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, "RE", 1),
    (3, 64, 24, False, "RE", 2),
    (3, 72, 24, False, "RE", 1),
    (5, 72, 40, True, "RE", 2),
    (5, 120, 40, True, "RE", 1),
    (5, 120, 40, True, "RE", 1),
    (3, 240, 80, False, "HS", 2),
    (3, 200, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 480, 112, True, "HS", 1),
    (3, 672, 112, True, "HS", 1),
    (5, 672, 160, True, "HS", 2),
    (5, 960, 160, True, "HS", 1),
    (5, 960, 160, True, "HS", 1),
)
SMALL: tuple[Row, ...] = (
    (3, 16, 16, True, "RE", 2),
    (3, 72, 24, False, "RE", 2),
    (3, 88, 24, False, "RE", 1),
    (5, 96, 40, True, "HS", 2),
    (5, 240, 40, True, "HS", 1),
    (5, 240, 40, True, "HS", 1),
    (5, 120, 48, True, "HS", 1),
    (5, 144, 48, True, "HS", 1),
    (5, 288, 96, True, "HS", 2),
    (5, 576, 96, True, "HS", 1),
    (5, 576, 96, True, "HS", 1),
)

VARIANTS = {
    f"mobilenet_v3_{name}": Variant(
        MobileNetV3,
        {"rows": rows, "hidden": hidden},
        f"torchvision mobilenet_v3_{name}",
        paper="Howard et al. 2019, https://arxiv.org/abs/1905.02244",
        classifier=("classifier.3",),
        first="features.0.0",
    )
    for name, rows, hidden in (("large", LARGE, 1280), ("small", SMALL, 1024))
}
