"""AlexNet: Krizhevsky et al., ImageNet Classification with Deep CNNs, 2012.

https://proceedings.neurips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html.
`alexnet_groups` is that network: two groups (its two GPUs) in the second, fourth and fifth
convolution and local response normalisation. No package has it; the reference is
tests/parity/networks/alexnet.py. `alexnet` is the narrower one without groups and normalisation of
Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014,
https://arxiv.org/abs/1404.5997; reference `torchvision.models.alexnet`.

Deviations: as in torchvision 224x224 images are padded by two (the 2012 paper's 55x55 maps need
227), and other sizes are averaged to 6x6 maps. Weights start as in He et al. 2015 with biases of 0.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head, flatten
from jaxvision.layers.images import check_size
from jaxvision.layers.linear import Dense
from jaxvision.models.variant import Variant
from jaxvision.ops.normalization import local_response_norm
from jaxvision.ops.pooling import adaptive_avg_pool2d, max_pool2d

_SMALLEST = 63


class AlexNet(nn.Module):
    """Five convolutions, max pooling after the first, second and fifth, three linear layers.

    Attributes:
      widths: channels of the convolutions.
      groups: of the second, fourth and fifth convolution.
      response_norm: whether the first two convolutions are normalised, with the paper's constants.
      hidden: channels of the two hidden linear layers.
      features_only: return the maps of strides 4, 8, 16 (each before its pooling) and 32.
    """

    feature_strides: ClassVar[tuple[int, ...]] = (4, 8, 16, 32)

    num_classes: int = 1000
    widths: Sequence[int] = (64, 192, 384, 256, 256)
    groups: int = 1
    response_norm: bool = False
    hidden: int = 4096
    dropout: float = 0.5
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        check_size(image, _SMALLEST, "AlexNet")
        x, features = image, []
        # (index in the reference, kernel, stride, padding, grouped)
        layers = ((0, 11, 4, 2, 0), (3, 5, 1, 2, 1), (6, 3, 1, 1, 0), (8, 3, 1, 1, 1))
        for width, (index, kernel, stride, padding, grouped) in zip(
            self.widths, (*layers, (10, 3, 1, 1, 1)), strict=True
        ):
            x = Conv2d(
                width,
                kernel,
                stride,
                padding,
                groups=self.groups if grouped else 1,
                dtype=self.dtype,
                name=f"features_{index}",
            )(x)
            x = nn.relu(x)
            if index in (0, 3, 10):
                features.append(x)
                if self.response_norm and index != 10:
                    x = local_response_norm(x, 5, 1e-4, 0.75, 2.0, divide=False)
                x = max_pool2d(x, 3, 2)
        if self.features_only:
            return (*features, x)
        x = flatten(adaptive_avg_pool2d(x, 6))
        for index in (1, 4):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.relu(Dense(self.hidden, dtype=self.dtype, name=f"classifier_{index}")(x))
        return Head(self.num_classes, dtype=self.dtype, name="classifier_6")(x)


def _variant(reference: str, paper: str, **options: object) -> Variant:
    classifier, first = ("classifier.6",), "features.0"
    return Variant(AlexNet, options, reference, paper=paper, classifier=classifier, first=first)


VARIANTS = {
    "alexnet": _variant("torchvision alexnet", "Krizhevsky 2014, https://arxiv.org/abs/1404.5997"),
    "alexnet_groups": _variant(
        "tests/parity/networks/alexnet.py AlexNetGroups",
        "Krizhevsky et al. 2012, https://doi.org/10.1145/3065386",
        widths=(96, 256, 384, 384, 256),
        groups=2,
        response_norm=True,
    ),
}
