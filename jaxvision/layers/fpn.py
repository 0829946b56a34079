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

EXTRA = ("", "pool", "last", "encoder")  # kinds of maps beyond the encoder's
_init = nn.initializers.lecun_uniform()


class FeaturePyramid(nn.Module):
    """An encoder's maps, each with what the coarser ones say, all of one width.

    Attributes:
      width: channels of all maps.
      extra: what comes after the coarsest map: nothing; "pool", every second place of it; "last",
        3x3 convolutions of stride 2 one after another on it; "encoder", the same on the encoder's.
      extra_names: of these convolutions.
      norm: whether the convolutions of each map have batch normalisation instead of a bias.
      dtype: what is computed in.
    """

    width: int = 256
    extra: str = ""
    extra_names: Sequence[str] = ("p6", "p7")
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
        if self.extra not in EXTRA:
            raise unknown("kind of extra maps", self.extra, EXTRA)

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
            x = maps[-1] if self.extra == "encoder" else outputs[-1]
            for index, name in enumerate(self.extra_names):
                layer = Conv2d(
                    self.width,
                    stride=2,
                    dtype=self.dtype,
                    kernel_init=_init,
                    name=f"extra_blocks.{name}",
                )
                x = layer(nn.relu(x) if index else x)
                outputs.append(x)
        return tuple(outputs)
