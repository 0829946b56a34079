"""OverFeat: Sermanet et al., Integrated Recognition, Localization and Detection, 2013.

https://arxiv.org/abs/1312.6229. A classifier of windows whose linear layers are convolutions, so
that it looks at all windows of an image at once and computes nothing twice; beside it a regressor
of the box. Reference: tests/parity/networks/overfeat.py, written from the paper's tables 1 and 3.

`heads_by_windows` cuts out each window and gives the same where layers have no padding. The paper's
third layer and those after it have: in a window alone they see zeros at its border, in the image
what lies there, so for its networks the two differ.

Deviations: both heads are trained at once, with a background to learn and hard negatives of the
same image, instead of one after the other with negatives gathered on the way. Boxes of an object
are not merged into a mean (section 4.3), the best one is kept.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.pyramid import by_stride, required
from jaxvision.losses import Ratio, cross_entropy, hard_negative_mining
from jaxvision.models.detection.dense import flat
from jaxvision.models.detection.outputs import select
from jaxvision.models.detection.targets import Targets, learnable
from jaxvision.models.variant import Variant
from jaxvision.ops.boxes import pairwise_iou
from jaxvision.ops.forms import accumulable
from jaxvision.ops.matching import IGNORED, match_boxes
from jaxvision.ops.pooling import max_pool2d
from jaxvision.ops.resize import resize
from jaxvision.ops.tiling import each_window

# Channels, kernel, stride and padding of a convolution, and the max pooling behind it; 0 is none.
Layer = tuple[int, int, int, int, int]
FAST: tuple[Layer, ...] = (
    (96, 11, 4, 0, 2),
    (256, 5, 1, 0, 2),
    (512, 3, 1, 1, 0),
    (1024, 3, 1, 1, 0),
    (1024, 3, 1, 1, 2),
)
ACCURATE: tuple[Layer, ...] = (
    (96, 7, 2, 0, 3),
    (256, 7, 1, 0, 2),
    (512, 3, 1, 1, 0),
    (512, 3, 1, 1, 0),
    (1024, 3, 1, 1, 0),
    (1024, 3, 1, 1, 3),
)


class Trunk(nn.Module):
    """Convolutions with ReLU, some with max pooling.

    Attributes:
      layers: see `Layer`.
      fine: whether the last pooling has no stride.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    layers: Sequence[Layer]
    fine: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        index = 0
        for number, (width, kernel, stride, padding, pool) in enumerate(self.layers, start=1):
            conv = Conv2d(width, kernel, stride, padding, dtype=self.dtype, name=str(index))
            x, index = nn.relu(conv(x)), index + 2
            if pool:
                last = number == len(self.layers)
                x, index = max_pool2d(x, pool, 1 if self.fine and last else pool), index + 1
        return x


class Convolutions(nn.Module):
    """Linear layers of a window as convolutions, with ReLU between them, one after the other.

    Attributes:
      widths: their channels.
      kernel: of the first one; others are 1x1.
      dilation: of the first one.
      dropout: rate behind each but the last; None is no layer of the reference's.
      start: what the biases of the last are at first, again and again.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    widths: Sequence[int]
    kernel: int
    dilation: int = 1
    dropout: float | None = None
    start: Sequence[float] = (0.0,)
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        def start(key: Any, shape: Sequence[int], dtype: Any) -> Array:
            return jnp.tile(jnp.asarray(self.start, dtype), shape[0] // len(self.start))

        apart = 2 if self.dropout is None else 3  # in the reference's Sequential
        for index, width in enumerate(self.widths):
            first, last = index == 0, index + 1 == len(self.widths)
            x = Conv2d(
                width,
                self.kernel if first else 1,
                padding=0,
                dilation=self.dilation if first else 1,
                dtype=self.dtype,
                kernel_init=nn.initializers.normal(0.01) if last else nn.initializers.he_normal(),
                bias_init=start if last else nn.initializers.zeros,
                name=str(apart * index),
            )(x)
            if not last:
                x = nn.Dropout(self.dropout or 0.0, deterministic=not train)(nn.relu(x))
        return x


class OverFeat(nn.Module):
    """A detector by sliding windows; see docs/detection.md for what it is given and gives.

    All scales are seen in training too, as the paper trains its regressor.

    Attributes:
      encoder: gives the map in the place of `layers`; None is those.
      stride: of the encoder's map. A window is then `kernel` times as large.
      layers: of the trunk. They decide size and distance of the windows.
      fine: whether the last pooling of `layers` has no stride and the heads look at every so many
        places: windows are as much nearer to each other, as by the paper's offsets (section 3.3).
      kernel: rows and columns of the map that the heads see of a window.
      hidden: channels of the classifier's hidden layers.
      regress: whether boxes are regressed; otherwise windows are the boxes.
      class_specific: whether each class has boxes of its own.
      box_hidden: channels of the regressor's hidden layers.
      scales: of the image; windows of a smaller one are larger in pixels of the image.
      overlaps: a window below the first IoU is background, from the second on it is the object's
        that it overlaps most; what is between is not learnt.
      negatives: how many backgrounds are learnt for each window of an object.
      dropout: rate, behind the classifier's hidden layers.
      score_threshold, nms_threshold, max_detections: see `select`.
      candidates: boxes of all scales before suppression.
    """

    ENDS = ("classes",)

    num_classes: int = 1000
    encoder: Any = None
    stride: int = 32
    layers: Sequence[Layer] = FAST
    fine: bool = False
    kernel: int = 6
    hidden: Sequence[int] = (3072, 4096)
    regress: bool = True
    class_specific: bool = False
    box_hidden: Sequence[int] = (4096, 1024)
    scales: Sequence[float] = (1.0,)
    overlaps: tuple[float, float] = (0.3, 0.5)
    negatives: int = 3
    dropout: float = 0.5
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100
    candidates: int = 1000
    dtype: Any = None

    def heads(self, image: Float[Array, "b h w c"], train: bool = False) -> dict[str, Array]:
        """Of all windows, scale after scale: `cls_logits` [b, n, k + 1], the background first, and
        perhaps `bbox_regression` [b, n, 4] or [b, n, 4 k], in parts of the window."""
        logits, coded, _ = self._run(image, train)
        return {"cls_logits": logits} | ({} if coded is None else {"bbox_regression": coded})

    @property
    def apart(self) -> int:
        """Pixels between windows."""
        if self.encoder is not None:
            return self.stride
        strides = [stride * max(pool, 1) for _, _, stride, _, pool in self.layers]
        return math.prod(strides) // self._dilation

    @property
    def window(self) -> int:
        """Rows and columns of a window, in pixels: of an image, that has just one."""
        if self.encoder is not None:
            return self.kernel * self.stride
        size = self.kernel
        for _, kernel, stride, padding, pool in reversed(self.layers):
            size = (size * max(pool, 1) - 1) * stride + kernel - 2 * padding
        return size

    @property
    def _dilation(self) -> int:
        return max(self.layers[-1][4], 1) if self.fine and self.encoder is None else 1

    @nn.compact
    def _run(self, image: Array, train: bool) -> tuple[Array, Array | None, Array]:
        """(logits [b, n, k + 1], coded boxes [b, n, 4 or 4 k], windows [n, 4])."""
        if self.fine and self.encoder is not None:
            raise UserError("OverFeat's fine windows need its own layers; leave out the encoder.")
        trunk = Trunk(self.layers, self.fine, self.dtype, name="features")
        same: dict[str, Any] = {"kernel": self.kernel, "dilation": self._dilation}
        same["dtype"] = self.dtype
        widths = (*self.hidden, self.num_classes + 1)
        classify = Convolutions(widths, dropout=self.dropout, name="classifier", **same)
        boxes = self.num_classes if self.class_specific else 1
        widths = (*self.box_hidden, 4 * boxes)
        locate = Convolutions(widths, start=(0.0, 0.0, 1.0, 1.0), name="regressor", **same)
        logits, coded, windows = [], [], []
        for scale in self.scales:
            x = scaled(self, image, scale)
            size = x.shape[1:3]
            x = trunk(x) if self.encoder is None else self._encoded(x, train)
            scores = classify(x, train)
            logits.append(flat(accumulable(scores), scores.shape[-1]))
            if self.regress:
                coded.append(flat(accumulable(locate(x, train)), 4 * boxes))
            places = _places(scores.shape[1:3], self.apart, self.window)
            down, across = image.shape[1] / size[0], image.shape[2] / size[1]
            windows.append(places * np.array([across, down] * 2, np.float32))
        scores = jnp.concatenate(logits, 1)
        found = jnp.concatenate(coded, 1) if self.regress else None
        return scores, found, jnp.asarray(np.concatenate(windows), scores.dtype)

    def _encoded(self, image: Array, train: bool) -> Array:
        maps = by_stride(self.encoder, image, self.encoder(image, train))
        return required(maps, (self.stride,), "OverFeat")[0]

    def __call__(
        self,
        image: Float[Array, "b h w c"],
        train: bool = False,
        targets: Targets | None = None,
    ) -> dict[str, Array] | dict[str, Ratio]:
        logits, coded, windows = self._run(image, train)
        if train:
            return losses(self, logits, coded, windows, targets)
        scores = jax.nn.softmax(logits)[..., 1:]
        batch, places, classes = scores.shape
        every = scores.reshape(batch, places * classes)
        best, index = jax.lax.top_k(every, min(self.candidates, places * classes))
        boxes = windows[index // classes]
        if coded is not None:
            row = index if self.class_specific else index // classes
            chosen = jnp.take_along_axis(flat(coded, 4), row[..., None], 1)
            boxes = decode(chosen, boxes)
        return select(
            boxes,
            best,
            index % classes,
            image.shape[1:3],
            score_threshold=self.score_threshold,
            nms_threshold=self.nms_threshold,
            max_detections=self.max_detections,
        )


def scaled(network: OverFeat, image: Float[Array, "b h w c"], scale: float) -> Array:
    """The image at a scale.

    Raises:
      UserError: no window fits it then.
    """
    size = [round(side * scale) for side in image.shape[1:3]]
    if min(size) < network.window:
        raise UserError(
            f"OverFeat's windows have {network.window}x{network.window} pixels; at scale {scale} "
            f"images of {image.shape[1]}x{image.shape[2]} have {size[0]}x{size[1]}: take larger "
            "images, smaller layers, or other scales."
        )
    if size == list(image.shape[1:3]):
        return image
    return resize(jnp.asarray(image), size, antialias=True)


def _places(grid: Sequence[int], apart: int, window: int) -> Float[np.ndarray, "n 4"]:
    """The window of each place of a map, by rows."""
    rows, columns = (np.arange(count, dtype=np.float32) * apart for count in grid)
    y, x = (axis.reshape(-1) for axis in np.meshgrid(rows, columns, indexing="ij"))
    return np.stack([x, y, x + window, y + window], -1)


def encode(boxes: Float[Array, "*b 4"], windows: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
    """Sides of boxes in parts of windows, from their upper left corners on."""
    corner, extent = windows[..., :2], windows[..., 2:] - windows[..., :2]
    return (boxes - jnp.tile(corner, 2)) / jnp.tile(extent, 2)


def decode(coded: Float[Array, "*b 4"], windows: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
    """The inverse of `encode`."""
    corner, extent = windows[..., :2], windows[..., 2:] - windows[..., :2]
    return coded * jnp.tile(extent, 2) + jnp.tile(corner, 2)


def losses(
    network: OverFeat,
    logits: Float[Array, "b n k"],
    coded: Float[Array, "b n d"] | None,
    windows: Float[Array, "n 4"],
    targets: Targets | None,
) -> dict[str, Ratio]:
    """Cross-entropy of windows with an object and the worst of the background; squared error.

    Both are divided by the number of windows that have an object.

    Args:
      network: says what is learnt.
      logits, coded, windows: see `OverFeat._run`.
      targets: the objects.

    Raises:
      UserError: there are no targets.
    """
    truth, (low, high) = learnable(targets), network.overlaps
    found = jax.vmap(
        lambda boxes, valid: match_boxes(pairwise_iou(boxes, windows), valid, high, low)
    )(truth.boxes, truth.valid)
    learns, boxes, label = truth.taken(found)
    entropy, _ = cross_entropy(logits, jnp.where(learns, label + 1, 0))
    between = found == IGNORED
    hard = hard_negative_mining(jnp.where(between, -jnp.inf, entropy), learns, network.negatives)
    count = learns.sum().astype(jnp.float32)
    counted = learns | (hard & ~between)
    means = {"classification": Ratio(jnp.where(counted, entropy, 0).sum(), count)}
    if coded is not None:
        if network.class_specific:
            own = jnp.where(learns, label, 0)[..., None, None]
            each = coded.reshape(*coded.shape[:2], -1, 4)
            coded = jnp.take_along_axis(each, own, 2)[..., 0, :]
        wanted = encode(jnp.where(learns[..., None], boxes, windows), windows)
        error = jnp.square(coded - wanted).sum(-1)
        means["bbox_regression"] = Ratio(jnp.where(learns, error, 0).sum(), count)
    return means


def heads_by_windows(
    network: OverFeat, variables: Any, image: Float[Array, "b h w c"], batch: int = 64
) -> dict[str, Array]:
    """What `heads` gives, the slow way: every window is cut out and run by itself.

    Of layers with padding it is not quite the same; see above.

    Args:
      network: without an encoder, whose windows are only about what its places see.
      variables: of it.
      image: as it takes them.
      batch: windows at once.

    Raises:
      UserError: it has an encoder, or no window fits the image.
    """
    if network.encoder is not None:
        raise UserError("Windows are cut out of images for OverFeat's own layers alone.")
    alone = network.clone(scales=(1.0,))

    def of_windows(windows: Array) -> dict[str, Array]:
        found: Any = alone.apply(variables, windows, method="heads")
        return {name: value[:, 0] for name, value in found.items()}

    levels = [
        each_window(of_windows, scaled(network, image, s), network.window, network.apart, batch)
        for s in network.scales
    ]
    return {
        name: jnp.concatenate([flat(level[name], level[name].shape[-1]) for level in levels], 1)
        for name in levels[0]
    }


def _variant(reference: str, size: int, **options: Any) -> Variant:
    return Variant(
        OverFeat,
        options,
        reference,
        (size, size, 3),
        "Sermanet et al. 2013, https://arxiv.org/abs/1312.6229",
        classifier=("classifier.6",),
        first="encoder.features.0" if "encoder" in options else "features.0",
    )


VARIANTS = {
    "overfeat_fast": _variant("tests/parity/networks/overfeat.py OverFeat, fast", 231),
    "overfeat_accurate": _variant(
        "tests/parity/networks/overfeat.py OverFeat, accurate",
        221,
        layers=ACCURATE,
        kernel=5,
        hidden=(4096, 4096),
    ),
    # AlexNet as a convolution: its 6x6 maps are of windows.
    "sliding_window": _variant(
        "tests/parity/networks/overfeat.py OverFeat, around torchvision's AlexNet",
        224,
        encoder="alexnet",
        hidden=(4096, 4096),
        regress=False,
    ),
}
