"""A convolution, batch normalisation and an activation, under the names of each convention."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from flax.typing import Initializer
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d, he_normal
from jaxvision.layers.normalization import BatchNorm
from jaxvision.ops.windows import Padding, Pair


class ConvNormAct(nn.Module):
    """torchvision's `BasicConv2d`, timm's `ConvNormAct`, pytorchcv's `ConvBlock`.

    With the names "0" and "1" it is torchvision's `Conv2dNormActivation`.

    Attributes:
      features, kernel_size, stride, padding, dilation, groups: see `Conv2d`.
      use_bias: whether the convolution has a bias; None is when there is no norm.
      norm: whether there is batch normalisation.
      epsilon: added to its variance.
      momentum: see `BatchNorm`.
      act: the activation; None is none.
      names: of the convolution and the norm.
      kernel_init: of the convolution.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    features: int
    kernel_size: Pair = 1
    stride: Pair = 1
    padding: Padding | None = None
    dilation: Pair = 1
    groups: int = 1
    use_bias: bool | None = None
    norm: bool = True
    epsilon: float = 1e-5
    momentum: float = 0.9
    act: Callable[[Array], Array] | None = nn.relu
    names: tuple[str, str] = ("conv", "bn")
    kernel_init: Initializer = he_normal
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        x = Conv2d(
            self.features,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            use_bias=not self.norm if self.use_bias is None else self.use_bias,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name=self.names[0],
        )(x)
        if self.norm:
            norm = BatchNorm(self.momentum, self.epsilon, dtype=self.dtype, name=self.names[1])
            x = norm(x, train)
        return x if self.act is None else self.act(x)


def conv_norm_relu(
    parent: nn.Module,
    features: int,
    kernel_size: int,
    conv: str,
    norm: str,
    x: Float[Array, "b h w c"],
    train: bool,
    dilation: int = 1,
) -> Float[Array, "b h w d"]:
    """A convolution without bias, batch norm and ReLU, as entries `conv`, `norm` of a Sequential.

    Args:
      parent: the module that they belong to, which has a `dtype`.
      features: channels of the output.
      kernel_size: of the convolution, which keeps the map's size.
      conv, norm: names.
      x: the map.
      train: whether the batch's statistics are used.
      dilation: of the convolution.
    """
    dtype = parent.dtype
    layer = Conv2d(
        features,
        kernel_size,
        dilation=dilation,
        use_bias=False,
        dtype=dtype,
        parent=parent,
        name=conv,
    )
    return nn.relu(BatchNorm(dtype=dtype, parent=parent, name=norm)(layer(x), train))
