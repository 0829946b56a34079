"""FastestDet: one map, one object a cell, a quarter of a million parameters.

Reference: github.com/dog-qiuqiu/FastestDet (2022). A ShuffleNet V2 of a quarter's width (Ma et al.
2018, https://arxiv.org/abs/1807.11164, in Megvii's form: channels are shuffled before a unit), its
last three maps brought to stride 16 and pooled (He et al. 2014, https://arxiv.org/abs/1406.4729),
and three heads: objectness, box, class. The box's loss is SIoU (Gevorgyan 2022,
https://arxiv.org/abs/2205.12740); objectness is trained to be the overlap.

Boxes may reach beyond the image, as the reference's do. An object trains the four cells around its
centre, of which those count that overlap more than the mean of the batch. Where two objects train
the same cell, the reference keeps what is written last; here the larger overlap is kept.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.normalization import BatchNorm
from jaxvision.losses import Ratio
from jaxvision.models.detection.outputs import select
from jaxvision.models.detection.targets import Boxes, Targets, learnable
from jaxvision.models.variant import Variant
from jaxvision.ops.forms import accumulable
from jaxvision.ops.pooling import avg_pool2d, max_pool2d
from jaxvision.ops.resize import resize

_STRIDE = 16


class _Layers(nn.Module):
    """Convolutions with batch norm as entries of the reference's Sequentials.

    Attributes:
      dtype: see `Conv2d`.
    """

    dtype: jnp.dtype | None = None

    def _conv(
        self,
        x: Array,
        features: int,
        kernel: int,
        train: bool,
        name: str,
        index: int = 0,
        stride: int = 1,
        depthwise: bool = False,
        relu: bool = True,
    ) -> Array:
        x = Conv2d(
            features,
            kernel,
            stride,
            groups=features if depthwise else 1,
            use_bias=False,
            dtype=self.dtype,
            name=f"{name}_{index}",
        )(x)
        x = BatchNorm(dtype=self.dtype, name=f"{name}_{index + 1}")(x, train)
        return nn.relu(x) if relu else x


class ShuffleUnit(_Layers):
    """A unit of ShuffleNet V2 whose input is shuffled.

    Attributes:
      features: channels of the output.
      downsample: whether the map is halved; both branches then see all channels.
    """

    features: int = 0
    downsample: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        width, stride = self.features // 2, 2 if self.downsample else 1
        left, right = (x, x) if self.downsample else (x[..., ::2], x[..., 1::2])
        rest = self.features - left.shape[-1]
        y = self._conv(right, width, 1, train, "branch_main")
        y = self._conv(y, width, 3, train, "branch_main", 3, stride, True, relu=False)
        y = self._conv(y, rest, 1, train, "branch_main", 5)
        if self.downsample:
            inner = left.shape[-1]
            left = self._conv(left, inner, 3, train, "branch_proj", 0, 2, True, relu=False)
            left = self._conv(left, inner, 1, train, "branch_proj", 2)
        return jnp.concatenate([left, y], -1)


class Trunk(_Layers):
    """ShuffleNet V2 without its end: the maps of strides 8, 16 and 32."""

    widths: Sequence[int] = (24, 48, 96, 192)
    depths: Sequence[int] = (4, 8, 4)

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], train: bool) -> list[Array]:
        x = self._conv(image, self.widths[0], 3, train, "first_conv", stride=2)
        x, maps = max_pool2d(x, 3, 2, 1), []
        for stage, (width, depth) in enumerate(zip(self.widths[1:], self.depths), start=2):
            for index in range(depth):
                unit = ShuffleUnit(self.dtype, width, index == 0, name=f"stage{stage}_{index}")
                x = unit(x, train)
            maps.append(x)
        return maps


class Pooling(_Layers):
    """Three chains of one, two and three depthwise 5x5 convolutions, added to their input."""

    features: int = 96

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        x = self._conv(x, self.features, 1, train, "Conv1x1.conv1x1")
        chains = []
        for length in (1, 2, 3):
            y = x
            for link in range(length):
                y = self._conv(y, self.features, 5, train, f"S{length}", 3 * link, depthwise=True)
            chains.append(y)
        y = jnp.concatenate(chains, -1)
        return nn.relu(x + self._conv(y, self.features, 1, train, "output", relu=False))


class Heads(_Layers):
    """Objectness, box and class of every cell, [b, h, w, 1 + 4 + k], before their activations."""

    num_classes: int = 80

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        width = x.shape[-1]
        x = self._conv(x, width, 1, train, "conv1x1.conv1x1")
        outputs = []
        for name, features in (("obj", 1), ("reg", 4), ("cls", self.num_classes)):
            layer = f"{name}_layers.conv5x5"
            y = self._conv(x, width, 5, train, layer, depthwise=True)
            outputs.append(self._conv(y, features, 1, train, layer, 3, relu=False))
        return jnp.concatenate(outputs, -1)


class FastestDet(nn.Module):
    """A detector; see docs/detection.md for what it is given and gives.

    Attributes:
      widths, depths: of the trunk.
      bgr: whether images come as RGB and are turned round, as the authors' weights want them.
      score_threshold: what is below is no object.
      nms_threshold: overlap from which the lower score of a class goes.
      max_detections: objects of an image.
    """

    ENDS = ("classes",)

    num_classes: int = 80
    widths: Sequence[int] = (24, 48, 96, 192)
    depths: Sequence[int] = (4, 8, 4)
    bgr: bool = False
    score_threshold: float = 0.001
    nms_threshold: float = 0.45
    max_detections: int = 100
    dtype: jnp.dtype | None = None

    def setup(self):
        # By these names the tree is the reference's.
        self.backbone = Trunk(self.dtype, self.widths, self.depths)
        self.SPP = Pooling(self.dtype, self.widths[-2])
        self.detect_head = Heads(self.dtype, self.num_classes)

    def heads(self, image: Float[Array, "b h w c"], train: bool = False) -> dict[str, Array]:
        """What the heads give in each cell, before their activations: `objectness`, `box`,
        `classes`."""
        outputs = self._cells(image, train)
        return {
            "objectness": outputs[..., :1],
            "box": outputs[..., 1:5],
            "classes": outputs[..., 5:],
        }

    def _cells(self, image: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        """Logit of objectness, four raw values of the box, logits of the classes, at stride 16."""
        fine, middle, coarse = self.backbone(image[..., ::-1] if self.bgr else image, train)
        coarse = resize(coarse, middle.shape[1:3], "nearest")
        x = jnp.concatenate([avg_pool2d(fine, 3, 2, 1), middle, coarse], -1)
        return accumulable(self.detect_head(self.SPP(x, train), train))

    def __call__(
        self,
        image: Float[Array, "b h w c"],
        train: bool = False,
        targets: Targets | None = None,
    ) -> dict[str, Array] | dict[str, Ratio]:
        outputs = self._cells(image, train)
        boxes = decode(outputs[..., 1:5])
        if train:
            return losses(outputs, boxes, learnable(targets))
        height, width = outputs.shape[1:3]
        sides = jnp.array([image.shape[2] / width, image.shape[1] / height] * 2)
        classes = jax.nn.softmax(outputs[..., 5:])
        score = jax.nn.sigmoid(outputs[..., 0]) ** 0.6 * classes.max(-1) ** 0.4
        flat = image.shape[0], height * width
        return select(
            (boxes * sides).reshape(*flat, 4),
            score.reshape(flat),
            classes.argmax(-1).reshape(flat),
            image.shape[1:3],
            score_threshold=self.score_threshold,
            nms_threshold=self.nms_threshold,
            max_detections=self.max_detections,
            clip=False,
        )


def decode(raw: Float[Array, "b h w 4"]) -> Float[Array, "b h w 4"]:
    """Boxes (x0, y0, x1, y1) in cells: offsets of the centre from the cell, parts of the map."""
    height, width = raw.shape[1:3]
    rows, columns = jnp.mgrid[:height, :width]
    centre = jnp.tanh(raw[..., :2]) + jnp.stack([columns, rows], -1)
    half = jax.nn.sigmoid(raw[..., 2:]) * jnp.array([width, height]) / 2
    return jnp.concatenate([centre - half, centre + half], -1)


def siou(a: Float[Array, "*b 4"], b: Float[Array, "*b 4"]) -> Float[Array, "*b"]:
    """Intersection over union less half of the costs of distance (by its angle) and shape."""
    eps = 1e-7
    shared = jnp.maximum(
        jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2]), 0
    )
    hull = jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2])
    add = jnp.array([0.0, eps])
    side_a, side_b = a[..., 2:] - a[..., :2] + add, b[..., 2:] - b[..., :2] + add
    overlap = shared.prod(-1)
    overlap /= side_a.prod(-1) + side_b.prod(-1) - overlap + eps
    apart = (b[..., :2] + b[..., 2:] - a[..., :2] - a[..., 2:]) / 2
    squares = jnp.square(apart).sum(-1, keepdims=True)
    far = squares > 0  # no angle, and no gradient of a root, where the centres are the same
    sines = jnp.where(far, jnp.abs(apart) / jnp.sqrt(jnp.where(far, squares, 1.0)), 0.0)
    sine = jnp.where(sines[..., 0] > 2**-0.5, sines[..., 1], sines[..., 0])
    angle = 2 * sine * jnp.sqrt(jnp.maximum(1 - jnp.square(sine), 0.5))  # cos(2 asin s - pi / 2)
    near = jnp.exp((angle[..., None] - 2) * jnp.square(apart / hull))
    unlike = jnp.abs(side_a - side_b) / jnp.maximum(side_a, side_b)
    shape = jnp.power(1 - jnp.exp(-unlike), 4)
    return overlap - 0.5 * ((1 - near).sum(-1) + shape.sum(-1))


def losses(
    outputs: Float[Array, "b h w d"], boxes: Float[Array, "b h w 4"], objects: Boxes
) -> dict[str, Ratio]:
    """SIoU times 8, objectness times 16, and the classes' log likelihood.

    Args:
      outputs: see `FastestDet._cells`.
      boxes: in cells.
      objects: to learn.
    """
    batch, height, width = outputs.shape[:3]
    truth = objects.boxes / _STRIDE  # [b, n, 4]
    centre = jnp.floor((truth[..., :2] + truth[..., 2:]) / 2).astype(jnp.int32)
    corners = jnp.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    cells = centre[:, :, None] + corners  # [b, n, 4, 2]
    inside = ((cells >= 0) & (cells < jnp.array([width, height]))).all(-1)
    there = inside & objects.valid[..., None]
    x, y = cells[..., 0].clip(0, width - 1), cells[..., 1].clip(0, height - 1)
    image = jnp.arange(batch)[:, None, None]
    # Boxes that are not there are made sound, so that their gradient is finite.
    sound = jnp.where(there[..., None], truth[:, :, None], jnp.array([0.0, 0.0, 1.0, 1.0]))
    overlap = siou(boxes[image, y, x], sound)
    mean = jnp.where(there, overlap, 0).sum() / jnp.maximum(there.sum(), 1)
    chosen = there & (overlap > mean)
    number = chosen.sum().astype(jnp.float32)
    box = Ratio(jnp.where(chosen, 8 * (1 - overlap), 0).sum(), number)
    likelihood = jax.nn.log_softmax(outputs[..., 5:])[image, y, x]
    label = objects.labels[:, :, None, None]
    own = jnp.take_along_axis(likelihood, jnp.broadcast_to(label, (*x.shape, 1)), -1)[..., 0]
    classes = Ratio(-jnp.where(chosen, own, 0).sum(), number)
    # Cells with an object share a quarter of an image's weight, all others three quarters.
    rows = jnp.where(chosen, y, height)
    wanted = jnp.full((batch, height, width), -jnp.inf).at[image, rows, x].max(overlap, mode="drop")
    taken = jnp.isfinite(wanted)
    count = jnp.maximum(chosen.sum((1, 2)), 1)[:, None, None]
    factor = jnp.where(taken, 0.25 * height * width / count, 0.75)
    error = jnp.abs(jax.nn.sigmoid(outputs[..., 0]) - jnp.where(taken, wanted, 0.0))
    smooth = jnp.where(error < 1, 0.5 * jnp.square(error), error - 0.5)
    counted = jnp.broadcast_to(objects.rows[:, None, None], smooth.shape)
    total = 16 * jnp.where(counted, smooth * factor, 0).sum()
    return {
        "box": box,
        "objectness": Ratio(total, counted.sum().astype(jnp.float32)),
        "classification": classes,
    }


VARIANTS = {
    "fastestdet": Variant(
        FastestDet,
        {},
        "github.com/dog-qiuqiu/FastestDet module.detector.Detector",
        (352, 352, 3),
        "Qiu, FastestDet, 2022, https://github.com/dog-qiuqiu/FastestDet",
        classifier=("detect_head.cls_layers.conv5x5.3", "detect_head.cls_layers.conv5x5.4"),
        first="backbone.first_conv.0",
    )
}
