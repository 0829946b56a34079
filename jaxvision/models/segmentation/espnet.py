"""ESPNet: Mehta et al., Efficient Spatial Pyramid of Dilated Convolutions, 2018.

https://arxiv.org/abs/1803.06815. Reference: the authors' `train/Model.py` (sacmehta/ESPNet), whose
published files load; tests/parity/networks/espnet.py says the same in fewer words. Its
`level2_0` and `level3_0`, which would read as the first entries of `level2` and `level3`, are
`level2_down` and `level3_down` here. Images whose sides are no multiple of 8 are padded below and
to the right, and the logits cut back. The authors feed it BGR; `bgr` turns images round for their
weights.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.activation import PReLU
from jaxvision.layers.convolution import Conv2d, ConvTranspose2d
from jaxvision.layers.images import pad_to_multiple
from jaxvision.layers.normalization import BatchNorm
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import avg_pool2d
from jaxvision.ops.resize import resize
from jaxvision.state_dict import StateDict, renamed

_DILATIONS = (1, 2, 4, 8, 16)


class NormAct(nn.Module):
    """Batch normalisation and PReLU."""

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        x = BatchNorm(epsilon=1e-3, dtype=self.dtype, name="bn")(x, train)
        return PReLU(self.dtype, name="act")(x)


class Conv(nn.Module):
    """A convolution without bias; batch normalisation and PReLU if wanted."""

    features: int
    kernel_size: int = 1
    stride: int = 1
    dilation: int = 1
    normalise: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b i j d"]:
        x = Conv2d(
            self.features,
            self.kernel_size,
            self.stride,
            dilation=self.dilation,
            use_bias=False,
            dtype=self.dtype,
            name="conv",
        )(x)
        if self.normalise:
            x = BatchNorm(epsilon=1e-3, dtype=self.dtype, name="bn")(x, train)
            x = PReLU(self.dtype, name="act")(x)
        return x


class ESP(nn.Module):
    """Reduce, split, transform, merge: a fifth of the channels through five dilated convolutions.

    The branches are added up from the second one on before they are joined, against the grid
    that large dilations leave.

    Attributes:
      features: channels of the output.
      down: whether it halves the map.
      residual: whether the input is added.

    Raises:
      UserError: fewer than five features.
    """

    features: int
    down: bool = False
    residual: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        narrow = self.features // 5
        if not narrow:
            raise UserError(
                f"ESPNet's decoder splits its {self.features} classes among five branches; it "
                "needs five classes or more. 'espnet_c', without it, takes any number."
            )
        side, stride = (3, 2) if self.down else (1, 1)
        reduced = Conv(narrow, side, stride, dtype=self.dtype, name="c1")(x)
        branches: list[Array] = []
        for rate in _DILATIONS:
            features = self.features - 4 * narrow if rate == 1 else narrow
            layer = Conv(features, 3, dilation=rate, dtype=self.dtype, name=f"d{rate}")
            branch = layer(reduced)
            branches.append(branch + branches[-1] if rate > 2 else branch)
        y = jnp.concatenate(branches, axis=-1)
        if self.residual:
            y = x + y
        if not self.down:
            return NormAct(self.dtype, name="bn")(y, train)
        y = BatchNorm(epsilon=1e-3, dtype=self.dtype, name="bn")(y, train)
        return PReLU(self.dtype, name="act")(y)


class Encoder(nn.Module):
    """Three stages, each of whose inputs and outputs are joined, with the image, for the next.

    Gives what the decoder takes: the joined maps of strides 2 and 4, and scores of stride 8.

    Attributes:
      depths: how many ESP modules the last two stages have: p and q in the paper.
    """

    num_classes: int
    depths: tuple[int, int] = (2, 8)
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        half = avg_pool2d(image, 3, 2, 1)
        x = Conv(16, 3, 2, normalise=True, dtype=self.dtype, name="level1")(image, train)
        fine = NormAct(self.dtype, name="b1")(_join(x, half), train)
        quarter = avg_pool2d(half, 3, 2, 1)
        first, x = self._stage(fine, 64, self.depths[0], "level2", train)
        middle = NormAct(self.dtype, name="b2")(_join(x, first, quarter), train)
        first, x = self._stage(middle, 128, self.depths[1], "level3", train)
        coarse = NormAct(self.dtype, name="b3")(_join(first, x), train)
        if not self.num_classes:
            return fine, middle, coarse
        scores = Conv(self.num_classes, dtype=self.dtype, name="classifier")(coarse)
        return fine, middle, scores

    def _stage(
        self, x: Array, features: int, depth: int, name: str, train: bool
    ) -> tuple[Array, Array]:
        first = x = ESP(features, down=True, dtype=self.dtype, name=f"{name}_down")(x, train)
        for index in range(depth):
            block = ESP(features, residual=True, dtype=self.dtype, name=f"{name}_{index}")
            x = block(x, train)
        return first, x


class ESPNetC(nn.Module):
    """The encoder alone, whose scores are enlarged bilinearly: ESPNet-C.

    Returns logits [b, h, w, num_classes], or with no classes the last map.

    Attributes:
      depths: see `Encoder`.
    """

    num_classes: int = 20
    depths: tuple[int, int] = (2, 8)
    bgr: bool = False  # whether images come as RGB and are turned round
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b i j k"]:
        # The encoder's parameters have no level of their own in the authors' files.
        encoder = Encoder(self.num_classes, self.depths, self.dtype, name="encoder")
        height, width = image.shape[1:3]
        image = pad_to_multiple(image[..., ::-1] if self.bgr else image, 8)
        scores = encoder(image, train)[-1]
        if not self.num_classes:
            return scores
        return resize(scores, image.shape[1:3])[:, :height, :width]


class ESPNet(nn.Module):
    """Encoder, and a decoder that only ever has as many channels as there are classes.

    Returns logits [b, h, w, num_classes], or with no classes the encoder's last map.

    Attributes:
      depths: see `Encoder`.
    """

    num_classes: int = 20
    depths: tuple[int, int] = (2, 8)
    bgr: bool = False  # whether images come as RGB and are turned round
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b i j k"]:
        classes, dtype = self.num_classes, self.dtype
        height, width = image.shape[1:3]
        encoder = Encoder(classes, self.depths, dtype, name="encoder")
        fine, middle, coarse = encoder(
            pad_to_multiple(image[..., ::-1] if self.bgr else image, 8), train
        )
        if not classes:
            return coarse
        x = BatchNorm(epsilon=1e-3, dtype=dtype, name="br")(coarse, train)
        x = self._double(x, "up_l3_0")
        x = _join(Conv(classes, dtype=dtype, name="level3_C")(middle), x)
        x = NormAct(dtype, name="combine_l2_l3_0")(x, train)
        x = ESP(classes, dtype=dtype, name="combine_l2_l3_1")(x, train)
        x = NormAct(dtype, name="up_l2_1")(self._double(x, "up_l2_0"), train)
        x = Conv(classes, 3, normalise=True, dtype=dtype, name="conv")(_join(x, fine), train)
        return self._double(x, "classifier")[:, :height, :width]

    def _double(self, x: Array, name: str) -> Array:
        up = ConvTranspose2d(self.num_classes, 2, 2, use_bias=False, dtype=self.dtype, name=name)
        return up(x)


def _join(*maps: Array) -> Array:
    return jnp.concatenate(maps, axis=-1)


def to_ours(state: StateDict) -> StateDict:
    """The authors' names with `level2_down` for `level2_0`, and an `encoder` around ESPNet-C's."""
    state = renamed(state, [(r"\b(level[23])_0\.", r"\1_down.")])
    alone = "level1.conv.weight" in state
    return renamed(state, [(r"^", "encoder.")]) if alone else state


def to_reference(state: StateDict) -> StateDict:
    """The inverse of `to_ours`."""
    state = renamed(state, [(r"\b(level[23])_down\.", r"\1_0.")])
    return state if "classifier.weight" in state else renamed(state, [(r"^encoder\.", "")])


_DECODER = (
    "classifier",
    "level3_C.conv",
    "br",
    *(f"conv.{layer}" for layer in ("conv", "bn", "act")),
    "up_l3.0",
    *(f"combine_l2_l3.0.{layer}" for layer in ("bn", "act")),
    *(f"combine_l2_l3.1.{layer}.conv" for layer in ("c1", *(f"d{r}" for r in _DILATIONS))),
    *(f"combine_l2_l3.1.bn.{layer}" for layer in ("bn", "act")),
    *(f"up_l2.{layer}" for layer in ("0", "1.bn", "1.act")),
)


def _variant(module: type[nn.Module], reference: str, *classifier: str) -> Variant:
    options: dict[str, Any] = {"depths": (2, 8)}
    return Variant(
        module,
        options,
        reference,
        (360, 480, 3),
        "Mehta et al. 2018, https://arxiv.org/abs/1803.06815",
        classifier=(*classifier, "encoder.classifier.conv"),
        first="encoder.level1.conv",
        convert=to_ours,
        export=to_reference,
    )


VARIANTS = {
    "espnet": _variant(ESPNet, "sacmehta/ESPNet ESPNet(p=2, q=8)", *_DECODER),
    "espnet_c": _variant(ESPNetC, "sacmehta/ESPNet ESPNet_Encoder(p=2, q=8)"),
}
