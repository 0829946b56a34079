"""Patch classifier: Farabet et al., Learning Hierarchical Features for Scene Labeling, 2013.

https://doi.org/10.1109/TPAMI.2012.231. The class of a pixel is that of the 46x46 patch around it.
Deviates: one scale of the paper's three, no contrast normalisation, no superpixels. The reference,
tests/parity/networks/patch_classifier.py, cuts out each patch.

One set of parameters, four ways to label an image, that give the same: `ops.tiling.each_window`
runs the network once a patch; `dense=False` is the network as a convolution with the stride of its
poolings, which `shift_and_stitch` runs on shifted images (Sermanet et al. 2014,
https://arxiv.org/abs/1312.6229); `dense=True` has no strides but dilated kernels and poolings
instead ("à trous": Giusti et al. 2013, https://arxiv.org/abs/1302.1700). The last computes nothing
twice.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.images import check_size
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import max_pool2d

PATCH = 46  # what the layers see: 7 + 1 + 6 * 2 + 2 + 6 * 4
STRIDE = 4  # of the poolings


class PatchClassifier(nn.Module):
    """Three 7x7 convolutions with tanh, the first two max-pooled, and two layers that classify.

    Returns logits [b, h, w, num_classes], or with no classes the features of the patches.

    Attributes:
      dense: whether there is a score for each pixel of the image, which is padded with zeros.
        Without, there is one for each place of the patch in the image as it is, 4 pixels apart.
      widths: channels of the convolutions.
      hidden: channels of the first of the layers that classify.
    """

    num_classes: int = 33
    dense: bool = True
    widths: tuple[int, int, int] = (16, 64, 256)
    hidden: int = 1024
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b i j k"]:
        x, rate = image, 1
        if self.dense:
            x = around(x, PATCH)
        check_size(x, PATCH, "A patch classifier that is not dense")
        for index, features in enumerate(self.widths, start=1):
            if index > 1:
                x = max_pool2d(x, 2, 1, dilation=rate) if self.dense else max_pool2d(x, 2)
                rate *= 2 if self.dense else 1
            name = f"conv{index}"
            x = Conv2d(features, 7, padding=0, dilation=rate, dtype=self.dtype, name=name)(x)
            x = nn.tanh(x) if index < len(self.widths) else x
        if not self.num_classes:
            return x
        x = nn.tanh(Conv2d(self.hidden, 1, dtype=self.dtype, name="fc1")(x))
        return Conv2d(self.num_classes, 1, dtype=self.dtype, name="fc2")(x)


def around(image: Float[Array, "b h w c"], patch: int) -> Float[Array, "b i j c"]:
    """The image with zeros around it, so that each of its pixels has a patch.

    Args:
      image: any.
      patch: rows and columns of the patch; its pixel is that below and to the right of the middle
        if they are even.
    """
    before, after = patch // 2, (patch - 1) // 2
    return jnp.pad(image, ((0, 0), (before, after), (before, after), (0, 0)))


def shift_and_stitch(
    apply: Callable[[Array], Array], image: Float[Array, "b h w c"], patch: int, stride: int
) -> Float[Array, "b i j k"]:
    """The same as `each_window` at stride 1, of a network that gives each `stride`-th place.

    Args:
      apply: from images to maps: a fully convolutional network.
      image: of at least one patch; see `around`.
      patch: rows and columns that the network sees.
      stride: of its map.
    """
    rows, columns = (side - patch + 1 for side in image.shape[1:3])
    # Zeros at the end give every shift a map of one size; what they touch is cut off again.
    down, across = (math.ceil(n / stride) for n in (rows, columns))
    image = jnp.pad(image, ((0, 0), (0, 2 * stride), (0, 2 * stride), (0, 0)))
    size = [(n - 1) * stride + patch for n in (down, across)]
    shifted = [
        [apply(image[:, i : i + size[0], j : j + size[1]]) for j in range(stride)]
        for i in range(stride)
    ]
    maps = jnp.stack([jnp.stack(row, axis=3) for row in shifted], axis=2)
    stitched = maps.reshape(len(image), down * stride, across * stride, -1)
    return stitched[:, :rows, :columns]


VARIANTS = {
    "patch_classifier": Variant(
        PatchClassifier,
        {},
        "tests/parity/networks/patch_classifier.py PatchClassifier",
        (240, 320, 3),
        "Farabet et al. 2013, https://doi.org/10.1109/TPAMI.2012.231",
        classifier=("fc2",),
        first="conv1",
    )
}
