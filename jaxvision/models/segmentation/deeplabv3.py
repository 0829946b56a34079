"""DeepLab v3, and torchvision's fully convolutional network: heads on a dilated encoder.

Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017,
https://arxiv.org/abs/1706.05587; Long et al., Fully Convolutional Networks for Semantic
Segmentation, 2014, https://arxiv.org/abs/1411.4038. Reference: torchvision's `deeplabv3_*` and
`fcn_*`, whose encoders keep a stride of 8. Any encoder with the option `output_stride` can stand
there; others keep their own stride.
"""

from typing import Any, ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.aspp import ASPP
from jaxvision.layers.conv_norm import conv_norm_relu
from jaxvision.layers.convolution import Conv2d
from jaxvision.models.variant import Variant
from jaxvision.ops.resize import resize


class FCNHead(nn.Module):
    """A 3x3 convolution to a quarter of the channels, dropout, and the classifier."""

    num_classes: int
    dropout: float = 0.1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w k"]:
        x = conv_norm_relu(self, x.shape[-1] // 4, 3, "0", "1", x, train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        if not self.num_classes:
            return x
        return Conv2d(self.num_classes, 1, dtype=self.dtype, name="4")(x)


class DeepLabHead(nn.Module):
    """Atrous spatial pyramid pooling, a 3x3 convolution and the classifier.

    Attributes:
      rates: see `ASPP`.
      width: channels of the head.
    """

    num_classes: int
    rates: tuple[int, ...] = (12, 24, 36)
    width: int = 256
    dropout: float = 0.5
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w k"]:
        x = ASPP(self.rates, self.width, dropout=self.dropout, dtype=self.dtype, name="0")(x, train)
        x = conv_norm_relu(self, self.width, 3, "1", "2", x, train)
        if not self.num_classes:
            return x
        return Conv2d(self.num_classes, 1, dtype=self.dtype, name="4")(x)


class DilatedSegmenter(nn.Module):
    """An encoder whose last stages are dilated, a head, and bilinear upsampling to the image.

    In training, with `auxiliary`, a dict of `logits` and `aux`, both [b, h, w, num_classes].
    With no classes the head's last map, at the encoder's stride.

    Attributes:
      encoder: gives feature maps; the last is used.
      head: "deeplab" or "fcn".
      auxiliary: whether there is a second FCN head, on the last map but one.
      rates, width: of the DeepLab head.
    """

    ENCODER: ClassVar[str] = "backbone"
    preserve_adopted_names: ClassVar[bool] = True

    num_classes: int = 21
    encoder: Any = None
    head: str = "deeplab"
    auxiliary: bool = False
    rates: tuple[int, ...] = (12, 24, 36)
    width: int = 256
    dropout: float | None = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w k"] | dict[str, Float[Array, "b h w k"]]:
        maps = self.encoder(image, train)
        size = image.shape[1:3]
        common: dict[str, Any] = {"dtype": self.dtype}
        if self.dropout is not None:
            common["dropout"] = self.dropout
        classify: nn.Module
        if self.head == "fcn":
            classify = FCNHead(self.num_classes, **common, name="classifier")
        else:
            classify = DeepLabHead(
                self.num_classes, self.rates, self.width, **common, name="classifier"
            )
        logits = classify(maps[-1], train)
        if not self.num_classes:
            return logits
        logits = resize(logits, size)
        if not self.auxiliary or not (train or self.is_initializing()):
            return logits
        aux = FCNHead(self.num_classes, **common, name="aux_classifier")(maps[-2], train)
        return {"logits": logits, "aux": resize(aux, size)} if train else logits


_PAPERS = {
    "fcn": "Long et al. 2014, https://arxiv.org/abs/1411.4038",
    "deeplab": "Chen et al. 2017, https://arxiv.org/abs/1706.05587",
}


def _variant(name: str, head: str, encoder: str, reference: str, stride: int = 8) -> Variant:
    return Variant(
        DilatedSegmenter,
        {"head": head, "encoder": encoder, "encoder_options": {"output_stride": stride}},
        reference,
        paper=_PAPERS[head],
        classifier=("classifier.4", "aux_classifier.4"),
        first="backbone.conv1",
        auxiliary=("aux_classifier.",),
    )


VARIANTS = {
    f"{name}_{encoder}": _variant(name, head, encoder, f"torchvision {name}_{encoder}")
    for name, head in (("fcn", "fcn"), ("deeplabv3", "deeplab"))
    for encoder in ("resnet50", "resnet101")
}
