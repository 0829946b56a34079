"""FCN: Long et al., Fully Convolutional Networks for Semantic Segmentation, 2015.

https://arxiv.org/abs/1411.4038. Reference: `torchfcn.models` (wkentaro/pytorch-fcn), the paper's
VGG-16 forms as trained in Caffe: 100 pixels of padding, windows that run over the end, crops that
undo both. Weights of torchvision's `vgg16` initialise all but the scores, and those of FCN-32s what
FCN-16s shares with it, and so on. Dropout takes whole channels, as there. Deviates: convolutions
start from He's distribution, not from zeros that weights are put into.

`fcn8s_resnet18` and the like have the same head on the feature maps of any encoder, without the
padding; their reference is tests/parity/networks/fcn.py. torchvision's FCN has no skips: see
`deeplabv3.py`.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d, ConvTranspose2d, bilinear
from jaxvision.layers.images import pad_to_multiple
from jaxvision.layers.pyramid import by_stride, required
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import max_pool2d
from jaxvision.state_dict import StateDict, renamed

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # VGG-16's channels and convolutions
# By the stride that the head begins with: what each upsampling is called and by how much it
# enlarges, and where the window lies that is kept of what comes next: a pooled map, or the image.
_UPSAMPLINGS = {
    32: (("upscore", 32, 19),),
    16: (("upscore2", 2, 5), ("upscore16", 16, 27)),
    8: (("upscore2", 2, 5), ("upscore_pool4", 2, 9), ("upscore8", 8, 31)),
}
_SCALES = {"score_pool4": 0.01, "score_pool3": 0.0001}  # of the maps, where all is trained at once


def _score(classes: int, name: str, dtype: Any) -> Conv2d:
    return Conv2d(classes, 1, dtype=dtype, kernel_init=nn.initializers.zeros, name=name)


def _upscore(classes: int, factor: int, padding: int, name: str, dtype: Any) -> ConvTranspose2d:
    return ConvTranspose2d(
        classes,
        2 * factor,
        factor,
        padding,
        use_bias=False,
        dtype=dtype,
        kernel_init=bilinear,
        name=name,
    )


class FCN(nn.Module):
    """VGG-16 with convolutions for linear layers, and scores upsampled and added stage by stage.

    Returns logits [b, h, w, num_classes] for images of any size, or with no classes the last map.

    Attributes:
      stride: of the finest scores: 32, 16 or 8.
      at_once: whether the finer maps are scaled down, so that no coarser network need be trained
        before.
      width: what the channels of VGG-16's convolutions are multiplied by.
      hidden: channels of what were its linear layers.
    """

    num_classes: int = 21
    stride: int = 32
    at_once: bool = False
    width: float = 1.0
    hidden: int = 4096
    dropout: float = 0.5
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b i j k"]:
        x, pooled, padding = image, [], 100
        for stage, (channels, depth) in enumerate(_STAGES, start=1):
            for number in range(1, depth + 1):
                name = f"conv{stage}_{number}"
                features = max(1, round(channels * self.width))
                x = Conv2d(features, 3, padding=padding, dtype=self.dtype, name=name)(x)
                x, padding = nn.relu(x), 1
            x = max_pool2d(x, 2, ceil_mode=True)
            pooled.append(x)
        for name, side in (("fc6", 7), ("fc7", 1)):
            x = nn.relu(Conv2d(self.hidden, side, padding=0, dtype=self.dtype, name=name)(x))
            drop = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)
            x = drop(x)
        if not self.num_classes:
            return x
        x = _score(self.num_classes, "score_fr", self.dtype)(x)
        *inner, (last, factor, corner) = _UPSAMPLINGS[self.stride]
        for (name, doubling, offset), pool in zip(inner, (4, 3), strict=False):
            x = _upscore(self.num_classes, doubling, 0, name, self.dtype)(x)
            finer, score = pooled[pool - 1], f"score_pool{pool}"
            if self.at_once:
                finer = finer * _SCALES[score]
            finer = _score(self.num_classes, score, self.dtype)(finer)
            x = x + _window(finer, offset, x.shape[1:3])
        x = _upscore(self.num_classes, factor, 0, last, self.dtype)(x)
        return _window(x, corner, image.shape[1:3])


def _window(
    x: Float[Array, "b h w c"], corner: int, size: tuple[int, ...]
) -> Float[Array, "b i j c"]:
    return x[:, corner : corner + size[0], corner : corner + size[1]]


class FCNPyramid(nn.Module):
    """FCN's head on an encoder: its maps are scored, and the scores upsampled and added.

    Returns logits [b, h, w, num_classes], or with no classes the encoder's last map. Images whose
    sides are no multiple of the largest stride are padded below and to the right, and the logits
    cut back.

    Attributes:
      encoder: gives feature maps of falling size.
      strides: of the maps that are scored, finest first.
    """

    num_classes: int = 21
    encoder: nn.Module | None = None
    strides: tuple[int, ...] = (8, 16, 32)
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w k"]:
        assert self.encoder is not None
        height, width = image.shape[1:3]
        image = pad_to_multiple(image, max(self.strides))
        levels = by_stride(self.encoder, image, self.encoder(image, train))
        maps = required(levels, self.strides, "FCN")
        if not self.num_classes:
            return maps[-1]
        x = jnp.zeros((), maps[-1].dtype)
        for stride, finer in zip(reversed(self.strides), (*self.strides[-2::-1], 1), strict=True):
            scores = _score(self.num_classes, f"score{stride}", self.dtype)(maps.pop())
            if x.ndim and x.shape != scores.shape:
                raise UserError(
                    "FCN's head needs an encoder that pads: its map of stride "
                    f"{stride} is {scores.shape[1]}x{scores.shape[2]}, not "
                    f"{x.shape[1]}x{x.shape[2]}."
                )
            x += scores
            factor = stride // finer
            up = _upscore(self.num_classes, factor, factor // 2, f"upscore{stride}", self.dtype)
            x = up(x)
        return x[:, :height, :width]


def to_reference(state: StateDict) -> StateDict:
    """Brings torchvision's or torchfcn's names to ours, in which `conv1_1` is `conv1.1`."""
    if "features.0.weight" in state and "classifier.0.weight" in state:
        state = vgg16_as_convolutions(state)
    return renamed(state, [(r"^conv(\d)_(\d)", r"conv\1.\2")])


def from_reference(state: StateDict) -> StateDict:
    """The inverse of `to_reference` for torchfcn."""
    return renamed(state, [(r"^conv(\d)\.(\d)", r"conv\1_\2")])


def vgg16_as_convolutions(state: StateDict) -> StateDict:
    """torchvision's VGG-16 by the paper's names, with linear layers as convolutions: `fc6`, `fc7`.

    The last one, whose classes are ImageNet's, is left out.
    """
    layers, index = {"classifier.0": "fc6", "classifier.3": "fc7"}, 0
    for stage, (_, depth) in enumerate(_STAGES, start=1):
        for number in range(1, depth + 1):
            layers[f"features.{index}"] = f"conv{stage}_{number}"
            index += 2
        index += 1
    out = {}
    for name, value in state.items():
        layer, _, leaf = name.rpartition(".")
        if layer not in layers:
            continue
        if layer.startswith("classifier") and leaf == "weight":
            side = 7 if layer == "classifier.0" else 1
            value = value.reshape(len(value), -1, side, side)
        out[f"{layers[layer]}.{leaf}"] = value
    return out


def _fcn(name: str, stride: int, **options: Any) -> Variant:
    scores = ("score_fr", "score_pool4", "score_pool3")[: len(_UPSAMPLINGS[stride])]
    last = {n: upsamplings[-1][0] for n, upsamplings in _UPSAMPLINGS.items()}
    return Variant(
        FCN,
        {"stride": stride, **options},
        f"torchfcn {name}",
        (224, 224, 3),
        "Long et al. 2015, https://arxiv.org/abs/1411.4038",
        # The upsamplings hold a number for each pair of classes.
        classifier=(*scores, *(upsampling[0] for upsampling in _UPSAMPLINGS[stride])),
        first="conv1.1",
        # A coarser network's own last layer.
        auxiliary=tuple(f"{layer}." for n, layer in last.items() if n > stride),
        convert=to_reference,
        export=from_reference,
    )


def _pyramid(encoder: str) -> Variant:
    strides = FCNPyramid.strides
    return Variant(
        FCNPyramid,
        {"encoder": encoder},
        "tests/parity/networks/fcn.py FCNPyramid",
        (224, 224, 3),
        "Long et al. 2015, https://arxiv.org/abs/1411.4038",
        classifier=tuple(f"{kind}{n}" for kind in ("score", "upscore") for n in strides),
        first="encoder.conv1",
    )


VARIANTS = {
    "fcn32s": _fcn("FCN32s", 32),
    "fcn16s": _fcn("FCN16s", 16),
    "fcn8s": _fcn("FCN8s", 8),
    "fcn8s_atonce": _fcn("FCN8sAtOnce", 8, at_once=True),
    "fcn8s_resnet18": _pyramid("resnet18"),
    "fcn8s_resnet50": _pyramid("resnet50"),
}
