"""Feature pyramid network: Lin et al., Feature Pyramid Networks for Object Detection, 2016.

https://arxiv.org/abs/1612.03144. Reference: torchvision's `FeaturePyramidNetwork` with its
`LastLevelMaxPool` and `LastLevelP6P7` (Lin et al., Focal Loss for Dense Object Detection, 2017,
https://arxiv.org/abs/1708.02002).
"""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import unknown
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.normalization import BatchNorm
from jaxvision.ops.resize import resize

# Maps beyond the encoder's: how many each kind adds.
EXTRA = {"": 0, "pool": 1, "p6p7": 2, "p6p7_c5": 2}
_init = nn.initializers.lecun_uniform()


def pyramid_strides(strides: Sequence[int], extra: str = "") -> tuple[int, ...]:
    """The strides of a pyramid's maps: the encoder's, then each twice the one before.

    Args:
      strides: of the encoder's maps, finest first.
      extra: see `FeaturePyramid`.

    Raises:
      UserError: there is no such kind of extra maps.
    """
    if extra not in EXTRA:
        raise unknown("kind of extra maps", extra, list(EXTRA))
    return (*strides, *(strides[-1] * 2**k for k in range(1, EXTRA[extra] + 1)))


class FeaturePyramid(nn.Module):
    """An encoder's maps, each with what the coarser ones say, all of one width.

    Attributes:
      width: channels of all maps.
      extra: what comes after the encoder's coarsest map (C5, which becomes P5): nothing; "pool",
        every second place of P5; "p6p7", two 3x3 convolutions of stride 2 on P5; "p6p7_c5", on C5.
      norm: whether the convolutions of each map have batch normalisation instead of a bias.
      dtype: what is computed in.
    """

    width: int = 256
    extra: str = ""
    norm: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(
        self, maps: Sequence[Float[Array, "b _ _ _"]], train: bool = False
    ) -> tuple[Float[Array, "b _ _ d"], ...]:
        """Takes maps finest first, and returns them so, then the extra ones.

        Raises:
          UserError: there is no such kind of extra maps.
        """
        pyramid_strides((1,), self.extra)

        def conv(x: Array, kernel_size: int, place: str) -> Array:
            x = Conv2d(
                self.width,
                kernel_size,
                use_bias=not self.norm,
                dtype=self.dtype,
                kernel_init=_init,
                name=f"{place}_0",
            )(x)
            return BatchNorm(dtype=self.dtype, name=f"{place}_1")(x, train) if self.norm else x

        inner: Array | None = None
        outputs: list[Array] = []
        for index in reversed(range(len(maps))):
            lateral = conv(maps[index], 1, f"inner_blocks_{index}")
            if inner is not None:
                lateral += resize(inner, lateral.shape[1:3], "nearest")
            inner = lateral
            outputs.insert(0, conv(inner, 3, f"layer_blocks_{index}"))
        if self.extra == "pool":
            outputs.append(outputs[-1][:, ::2, ::2])
        elif self.extra:
            x = maps[-1] if self.extra == "p6p7_c5" else outputs[-1]
            for name in ("p6", "p7"):
                layer = Conv2d(
                    self.width,
                    stride=2,
                    dtype=self.dtype,
                    kernel_init=_init,
                    name=f"extra_blocks.{name}",
                )
                x = layer(x if name == "p6" else nn.relu(x))
                outputs.append(x)
        return tuple(outputs)
