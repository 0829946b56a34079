"""UPerNet: Xiao et al., Unified Perceptual Parsing for Scene Understanding, 2018.

https://arxiv.org/abs/1807.10221. Reference: transformers' `UperNetForSemanticSegmentation` (a port
of mmsegmentation's), with Swin; its heads on torchvision's ResNet; and its
`BeitForSemanticSegmentation`, whose maps of one stride are brought to four. The encoders keep the
names of their own references, so files of transformers are renamed (`upernet_weights.py`); logits
are always upsampled to the image.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.conv_norm import conv_norm_relu
from jaxvision.layers.convolution import Conv2d, ConvTranspose2d
from jaxvision.layers.normalization import BatchNorm, LayerNorm
from jaxvision.layers.pyramid import feature_strides, required
from jaxvision.models.backbones import beit, swin
from jaxvision.models.segmentation import upernet_weights
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import adaptive_avg_pool2d, max_pool2d
from jaxvision.ops.resize import resize

Maps = Sequence[Float[Array, "b _ _ _"]]


class UPerHead(nn.Module):
    """Pyramid pooling of the deepest map, a feature pyramid over the others, and the classifier.

    Attributes:
      width: channels of every convolution.
      bins: sides of the grids that the deepest map is pooled to.
    """

    num_classes: int
    width: int = 512
    bins: tuple[int, ...] = (1, 2, 3, 6)
    dtype: Any = None

    @nn.compact
    def __call__(self, maps: Maps, train: bool) -> Float[Array, "b h w k"]:
        def conv(x: Array, kernel_size: int, place: str) -> Array:
            names = f"{place}.conv", f"{place}.batch_norm"
            return conv_norm_relu(self, self.width, kernel_size, *names, x, train)

        *fine, deep = maps
        pooled = [deep]
        for index, side in enumerate(self.bins):
            x = conv(adaptive_avg_pool2d(deep, side), 1, f"psp_modules.{index}.1")
            pooled.append(resize(x, deep.shape[1:3]))
        x = conv(jnp.concatenate(pooled, axis=-1), 3, "bottleneck")
        levels = [x]
        for index in reversed(range(len(fine))):
            x = resize(x, fine[index].shape[1:3])
            x += conv(fine[index], 1, f"lateral_convs.{index}")
            levels.insert(0, conv(x, 3, f"fpn_convs.{index}"))
        x = jnp.concatenate([resize(x, levels[0].shape[1:3]) for x in levels], axis=-1)
        x = conv(x, 3, "fpn_bottleneck")
        if not self.num_classes:
            return x
        return Conv2d(self.num_classes, 1, dtype=self.dtype, name="classifier")(x)


class AuxiliaryHead(nn.Module):
    """One 3x3 convolution and the classifier.

    Attributes:
      width: channels of the convolution.
    """

    num_classes: int
    width: int = 256
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w k"]:
        x = conv_norm_relu(self, self.width, 3, "convs.0.conv", "convs.0.batch_norm", x, train)
        return Conv2d(self.num_classes, 1, dtype=self.dtype, name="classifier")(x)


def _four_strides(parent: nn.Module, maps: Maps, train: bool) -> Maps:
    """Four maps of one stride (BEiT's) at four times, twice, once and half their size."""

    def double(x: Array, name: str) -> Array:
        layer = ConvTranspose2d(x.shape[-1], 2, 2, dtype=parent.dtype, parent=parent, name=name)
        return layer(x)

    first, second, third, fourth = maps
    norm = BatchNorm(dtype=parent.dtype, parent=parent, name="fpn1_1")
    first = double(nn.gelu(norm(double(first, "fpn1_0"), train), approximate=False), "fpn1_3")
    return first, double(second, "fpn2_0"), third, max_pool2d(fourth, 2)


class UPerNet(nn.Module):
    """Returns logits [b, h, w, num_classes]; in training a dict of `logits` and `aux`.

    With no classes it returns the head's last map, of the finest stride.

    Attributes:
      encoder: gives maps of strides 4, 8, 16 and 32, or four of one stride, best 16: they become
        maps of a quarter, half, once and twice that stride.
      width, bins: see `UPerHead`.
      auxiliary: whether there is a second head, on the map of stride 16.
      auxiliary_width: see `AuxiliaryHead`.
      norm_maps: whether the maps are layer-normalised first, as for Swin.
    """

    ENCODER: ClassVar[str] = "backbone"
    preserve_adopted_names: ClassVar[bool] = True

    num_classes: int = 150
    encoder: Any = None
    width: int = 512
    bins: tuple[int, ...] = (1, 2, 3, 6)
    auxiliary: bool = True
    auxiliary_width: int = 256
    norm_maps: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w k"] | dict[str, Float[Array, "b h w k"]]:
        maps, size = self.encoder(image, train), image.shape[1:3]
        strides = feature_strides(self.encoder, image, maps)
        if len(strides) == 4 and len(set(strides)) == 1:
            maps = _four_strides(self, maps, train)
        else:
            maps = required(dict(zip(strides, maps, strict=True)), (4, 8, 16, 32), "UPerNet")
        if self.norm_maps:
            maps = [
                LayerNorm(
                    epsilon=1e-5, dtype=self.dtype, name=f"backbone.hidden_states_norms.stage{i}"
                )(x)
                for i, x in enumerate(maps, start=1)
            ]
        form = (self.num_classes, self.width, self.bins)
        logits = UPerHead(*form, dtype=self.dtype, name="decode_head")(maps, train)
        if not self.num_classes:
            return logits
        logits = resize(logits, size)
        if not self.auxiliary or not (train or self.is_initializing()):
            return logits
        head = AuxiliaryHead(
            self.num_classes, self.auxiliary_width, dtype=self.dtype, name="auxiliary_head"
        )
        aux = head(maps[2], train)
        return {"logits": logits, "aux": resize(aux, size)} if train else logits


def _variant(encoder: str, reference: str, side: int, first: str, **options: Any) -> Variant:
    return Variant(
        UPerNet,
        {"encoder": encoder, **options},
        reference,
        (side, side, 3),
        "Xiao et al. 2018, https://arxiv.org/abs/1807.10221",
        classifier=("decode_head.classifier", "auxiliary_head.classifier"),
        first=f"backbone.{first}",
        auxiliary=("auxiliary_head.",),
        convert=upernet_weights.convert,
        export=upernet_weights.export,
    )


def _swin(size: str, side: int = 512) -> Variant:
    trunk = {"tiny": (7, 224), "small": (7, 224), "base": (12, 384), "large": (12, 384)}[size]
    network = _variant(
        f"swin_{size}_patch4_window{trunk[0]}_{trunk[1]}",
        f"transformers UperNetForSemanticSegmentation, Swin {size}",
        side,
        "patch_embed.proj",
        norm_maps=True,
        encoder_options={"whole_windows": True},
    )
    return replace(network, resize=swin.resize)


# transformers counts what goes into a block, so its 3, 5, 7, 11 are what comes out of these.
_BEIT_BLOCKS = {"base": (1, 3, 5, 9), "large": (5, 9, 13, 21)}


def _beit(size: str) -> Variant:
    width = {"base": 768, "large": 1024}[size]
    network = _variant(
        f"beit_{size}_patch16_384",
        f"transformers BeitForSemanticSegmentation, {size}",
        640,
        "patch_embed.proj",
        width=width,
        encoder_options={"out_blocks": _BEIT_BLOCKS[size], "interpolation": "bilinear"},
    )
    return replace(network, resize=partial(beit.resize, interpolation="bilinear"))


VARIANTS = {
    **{
        f"upernet_{encoder}": _variant(
            encoder, "tests/parity/networks/upernet.py UPerNet", 512, "conv1"
        )
        for encoder in ("resnet18", "resnet50", "resnet101")
    },
    **{f"upernet_swin_{size}": _swin(size) for size in ("tiny", "small", "base", "large")},
    **{f"upernet_beit_{size}": _beit(size) for size in _BEIT_BLOCKS},
}
