"""Linear layers as a Flax module; how they are computed is in `jaxvision.ops.linear`."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Initializer
from jaxtyping import Array, Float

from jaxvision.layers.parameters import parameter
from jaxvision.ops.linear import add_bias, matmul


class Dense(nn.Module):
    """A linear layer on the last axis. Parameters: `kernel` (in, out) and `bias`, float32.

    Attributes:
      features: channels of the output.
      use_bias: whether a bias is added.
      dtype: what is computed in; None is what input and parameters promote to.
      kernel_init: of the kernel; normal with the variance of LeCun et al. 1998.
      bias_init: of the bias.
    """

    features: int
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        shape = (x.shape[-1], self.features)
        kernel = parameter(self, "kernel", self.kernel_init, shape, jnp.float32)
        bias = None
        if self.use_bias:
            bias = parameter(self, "bias", self.bias_init, (self.features,), jnp.float32)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = matmul(x, kernel)
        return y if bias is None else add_bias(y, bias)
