"""LeNet-5: LeCun et al., Gradient-based learning applied to document recognition, 1998.

https://doi.org/10.1109/5.726791. `lenet5`, reference `mmpretrain.models.LeNet5`, is what every
modern reading makes of it (61,706 weights): all maps of S2 are connected to C3, pooling is a plain
average and a linear layer ends it. `lenet5_sparse` is the paper's network (60,000 weights): the
sparse table of C3, trained coefficients of the sub-sampling, the scaled tanh and distances to
bitmaps; reference tests/parity/networks/lenet.py. Its bitmaps are drawn in the manner of the
paper's figure 3, weights start as in LeCun et al., Efficient BackProp, 1998, and what is trained
is the cross-entropy of the negative distances, without the paper's constant j.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head
from jaxvision.layers.linear import Dense
from jaxvision.layers.parameters import parameter
from jaxvision.models.variant import Variant
from jaxvision.ops.convolution import conv2d
from jaxvision.ops.pooling import avg_pool2d

# Table I of the paper: the maps of S2 that each map of C3 sees.
TABLE = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)
# The digits in 7x12 pixels, a row a line: what the units of F6 should be for each class.
_DIGITS = """
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
..###..  ...##..  .#####.  #######  .....#.  #######  ..####.  #######  .#####.  .#####.
.##.##.  ..###..  ##...##  .....##  ....##.  ##.....  .##....  #.....#  ##...##  ##...##
##...##  .####..  ##...##  ....##.  ...###.  ##.....  ##.....  .....##  ##...##  ##...##
##...##  ...##..  .....##  ...##..  ..####.  ##.....  ##.....  ....##.  ##...##  ##...##
##...##  ...##..  ....##.  ..####.  .##.##.  ######.  ######.  ....##.  .#####.  .######
##...##  ...##..  ...##..  .....##  ##..##.  .....##  ##...##  ...##..  ##...##  .....##
##...##  ...##..  ..##...  .....##  #######  .....##  ##...##  ...##..  ##...##  .....##
.##.##.  ...##..  .##....  ##...##  ....##.  ##...##  ##...##  ..##...  ##...##  ....##.
..###..  .######  #######  .#####.  ....##.  .#####.  .#####.  ..##...  .#####.  .####..
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
"""
_ROWS = np.array([[[*digit] for digit in line.split()] for line in _DIGITS.split("\n") if line])
BITMAPS = np.where(_ROWS == "#", 1.0, -1.0).transpose(1, 0, 2).reshape(10, 84).astype(np.float32)


def _padded(image: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
    if image.shape[1:3] == (28, 28):
        image = jnp.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)))
    if min(image.shape[1:3]) < 32:
        raise UserError(
            f"LeNet-5 takes images of 28x28, or of 32x32 or more; not {image.shape[1:3]}."
        )
    return image


class LeNet5(nn.Module):
    """Three 5x5 convolutions with tanh, the first two pooled, then two linear layers.

    Takes 32x32 images (28x28 ones are padded by two); other sizes change C5's output map and are
    averaged over it.
    """

    num_classes: int = 10
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b k"]:
        image = _padded(image)
        conv = partial(Conv2d, kernel_size=5, padding=0, dtype=self.dtype)
        x = avg_pool2d(jnp.tanh(conv(6, name="features_0")(image)), 2)
        x = avg_pool2d(jnp.tanh(conv(16, name="features_3")(x)), 2)
        x = jnp.tanh(conv(120, name="features_6")(x)).mean((1, 2))
        x = jnp.tanh(Dense(84, dtype=self.dtype, name="classifier_0")(x))
        return Head(self.num_classes, dtype=self.dtype, name="classifier_2")(x)


def scaled_tanh(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Appendix A: near the identity in [-1, 1], with the targets inside of its range."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


class SubSampling(nn.Module):
    """The sum of each 2x2 square times a coefficient of its map, plus a bias."""

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        scale = parameter(self, "scale", nn.initializers.constant(0.25), x.shape[-1:], jnp.float32)
        bias = parameter(self, "bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        x, scale, bias = nn.dtypes.promote_dtype(x, scale, bias, dtype=self.dtype)
        return 4 * avg_pool2d(x, 2) * scale + bias


class SparseConv(nn.Module):
    """A 5x5 convolution whose output maps see some of the input maps: one kernel a connection.

    Attributes:
      table: the input maps of each output map.
    """

    table: tuple[tuple[int, ...], ...] = TABLE
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        sources = np.concatenate(self.table)
        ends = np.repeat(np.eye(len(self.table)), [len(maps) for maps in self.table], axis=0)
        mean_fan_in = 25 * len(sources) / len(self.table)
        start = nn.initializers.normal(mean_fan_in**-0.5)
        kernel = parameter(self, "kernel", start, (5, 5, 1, len(sources)), jnp.float32)
        bias = parameter(self, "bias", nn.initializers.zeros, (len(self.table),), jnp.float32)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv2d(x[..., sources], kernel, groups=len(sources))
        return y @ jnp.asarray(ends, y.dtype) + bias


class LeNet5Sparse(nn.Module):
    """The paper's layers C1 to F6, then the negative squared distances to the classes' bitmaps.

    Takes the images that `LeNet5` takes, but of ten classes at the most; the paper's are from -0.1
    (background) to 1.175 (ink). Without classes it gives C5.
    """

    num_classes: int = 10
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b k"]:
        image = _padded(image)
        if self.num_classes > len(BITMAPS):
            raise UserError(
                f"lenet5_sparse has bitmaps of {len(BITMAPS)} classes; not of {self.num_classes}. "
                f"Create it with num_classes={len(BITMAPS)} or fewer."
            )
        start = nn.initializers.lecun_normal()
        conv = partial(Conv2d, kernel_size=5, padding=0, dtype=self.dtype, kernel_init=start)
        x = scaled_tanh(conv(6, name="c1")(image))
        x = scaled_tanh(SubSampling(self.dtype, name="s2")(x))
        x = scaled_tanh(SparseConv(dtype=self.dtype, name="c3")(x))
        x = scaled_tanh(SubSampling(self.dtype, name="s4")(x))
        x = scaled_tanh(conv(120, name="c5")(x)).mean((1, 2))
        if not self.num_classes:
            return x
        x = scaled_tanh(Dense(84, dtype=self.dtype, name="f6")(x))
        bitmaps = jnp.asarray(BITMAPS[: self.num_classes], x.dtype)
        return -jnp.square(x[:, None] - bitmaps).sum(-1)


VARIANTS = {
    "lenet5_sparse": Variant(
        LeNet5Sparse,
        {},
        "tests/parity/networks/lenet.py LeNet5Sparse",
        (32, 32, 1),
        "LeCun et al. 1998, https://doi.org/10.1109/5.726791",
        classifier=("f6",),
        first="c1",
    ),
    "lenet5": Variant(
        LeNet5,
        {},
        "mmpretrain.models.LeNet5(10)",
        (32, 32, 1),
        "LeCun et al. 1998, https://doi.org/10.1109/5.726791",
        classifier=("classifier.2",),
        first="features.0",
    ),
}
