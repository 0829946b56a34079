"""SSD: default boxes at every place of several maps, each with class scores and a better box.

Liu et al., SSD: Single Shot MultiBox Detector, 2015, https://arxiv.org/abs/1512.02325. Reference:
torchvision's `ssd300_vgg16`. `ssd512_vgg16` follows the authors' code for COCO
(github.com/weiliu89/caffe, branch ssd): seven maps, of which the last comes of a 4x4 convolution
with padding, and 24,564 boxes from 4 % of the image on. SSDLite (Sandler et al., MobileNetV2, 2018,
https://arxiv.org/abs/1801.04381, section 6.2; Howard et al., Searching for MobileNetV3, 2019,
https://arxiv.org/abs/1905.02244, section 6.3) has separable convolutions; reference: torchvision's
`ssdlite320_mobilenet_v3_large`.

As in the references negatives are three times the default boxes that have an object, so nothing is
learnt of an image without objects.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Float32

from jaxvision.errors import UserError
from jaxvision.layers.conv_norm import ConvNormAct
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.parameters import parameter
from jaxvision.layers.pyramid import by_stride, required
from jaxvision.losses import Ratio, cross_entropy, hard_negative_mining, smooth_l1
from jaxvision.models.detection.outputs import select_of_each_class
from jaxvision.models.detection.targets import claimed, learnable
from jaxvision.models.variant import Variant
from jaxvision.ops.anchors import default_boxes
from jaxvision.ops.boxes import decode_deltas, encode_deltas
from jaxvision.ops.forms import accumulable
from jaxvision.ops.pooling import max_pool2d
from jaxvision.state_dict import StateDict

WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the boxes' coding
# Hidden channels, channels, kernel, stride and padding of what makes a further map.
Extra = tuple[int, int, int, int, int]
_xavier = nn.initializers.xavier_uniform()
_conv_norm = partial(
    ConvNormAct,
    epsilon=1e-3,
    momentum=0.97,
    act=nn.relu6,
    names=("0", "1"),
    kernel_init=nn.initializers.normal(0.03),
)
_conv = partial(Conv2d, kernel_init=_xavier)


class _Head(nn.Module):
    """A convolution on each map: some numbers for each of its boxes.

    Attributes:
      size: how many numbers a box has.
      boxes: how many a place of each map has.
      separable: see `SSD`.
    """

    size: int
    boxes: Sequence[int]
    separable: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(
        self, maps: Sequence[Float[Array, "b _ _ _"]], train: bool
    ) -> Float[Array, "b n size"]:
        found = []
        for index, (x, boxes) in enumerate(zip(maps, self.boxes)):
            name, features, conv = f"module_list_{index}", boxes * self.size, _conv
            if self.separable:
                width = x.shape[-1]
                x = _conv_norm(width, 3, groups=width, dtype=self.dtype, name=f"{name}_0")(x, train)
                conv = partial(Conv2d, kernel_size=1, kernel_init=nn.initializers.normal(0.03))
                name = f"{name}_1"
            x = conv(features, dtype=self.dtype, name=name)(x)
            found.append(accumulable(x).reshape(x.shape[0], -1, self.size))
        return jnp.concatenate(found, 1)


class SSD(nn.Module):
    """A detector; see docs/detection.md for what it is given and gives.

    Attributes:
      encoder: a backbone with maps of the strides.
      strides: of those of its maps that are used, finest first.
      normalize: whether the vector at each place of the first map is brought to length 1, and its
        channels are scaled by what is learnt.
      linear: channels of VGG's linear layers as convolutions, on the last of these maps; 0 is none.
      extras: what makes further maps, each of the one before, of a 1x1 convolution and another: see
        `Extra`.
      separable: whether the heads' and the extra convolutions are depthwise, then 1x1, with batch
        norm: SSDLite.
      ratios: of each map, wide and tall boxes beside the two squares.
      scales, min_scale, max_scale, steps: see `default_boxes`.
      match_threshold: the IoU from which a default box learns an object; each object's best one
        does in any case.
      score_threshold, nms_threshold, max_detections: see `select`.
      candidates: boxes of each class before suppression.
    """

    ENDS = ("classes",)
    ENCODER: ClassVar[str] = "backbone"
    preserve_adopted_names: ClassVar[bool] = True

    num_classes: int = 90
    encoder: Any = None
    strides: Sequence[int] = (8, 16)
    normalize: bool = False
    linear: int = 0
    extras: Sequence[Extra] = ()
    separable: bool = False
    ratios: Sequence[Sequence[float]] = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    scales: Sequence[float] = ()
    min_scale: float = 0.15
    max_scale: float = 0.9
    steps: Sequence[float] = ()
    match_threshold: float = 0.5
    score_threshold: float = 0.01
    nms_threshold: float = 0.45
    max_detections: int = 200
    candidates: int = 400
    dtype: Any = None

    def heads(self, image: Float[Array, "b h w c"], train: bool = False) -> dict[str, Array]:
        """What the heads give for all default boxes: `cls_logits` and `bbox_regression`."""
        logits, coded, _ = self._run(image, train)
        return {"cls_logits": logits, "bbox_regression": coded}

    def __call__(
        self,
        image: Float[Array, "b h w c"],
        train: bool = False,
        targets: Mapping[str, Array] | None = None,
    ) -> dict[str, Array] | dict[str, Ratio]:
        logits, coded, anchors = self._run(image, train)
        if train:
            return losses(logits, coded, anchors, targets, self.match_threshold)
        scores = jax.nn.softmax(logits)[..., 1:]

        def decode(coded: Array, place: Array) -> Array:
            return decode_deltas(coded, anchors[place], WEIGHTS)

        return select_of_each_class(self, scores, coded, decode, image.shape[1:3])

    @nn.compact
    def _run(self, image: Array, train: bool) -> tuple[Array, Array, Array]:
        """(logits [b, n, k + 1], the background first; coded boxes [b, n, 4]; anchors [n, 4])."""
        maps = self._maps(image, train)
        self._check(len(maps))
        anchors = default_boxes(
            self.ratios,
            [(x.shape[1], x.shape[2]) for x in maps],
            (image.shape[1], image.shape[2]),
            scales=self.scales or None,
            min_scale=self.min_scale,
            max_scale=self.max_scale,
            steps=self.steps or None,
        )
        boxes = [2 + 2 * len(ratios) for ratios in self.ratios]
        head = partial(_Head, boxes=boxes, separable=self.separable, dtype=self.dtype)
        logits = head(self.num_classes + 1, name="head.classification_head")(maps, train)
        coded = head(4, name="head.regression_head")(maps, train)
        return logits, coded, jnp.asarray(anchors)

    def _maps(self, image: Array, train: bool) -> list[Array]:
        levels = by_stride(self.encoder, image, self.encoder(image, train))
        maps = required(levels, self.strides, "SSD")
        x = maps[-1]
        if self.linear:
            conv = partial(_conv, self.linear, dtype=self.dtype)
            x = nn.relu(conv(dilation=6, name="backbone.fc_1")(max_pool2d(x, 3, 1, 1)))
            x = maps[-1] = nn.relu(conv(kernel_size=1, name="backbone.fc_3")(x))
        if self.normalize:
            maps[0] = self._normalized(maps[0])
        for index, extra in enumerate(self.extras, start=0 if self.separable else 1):
            x = self._extra(x, extra, train, f"backbone.extra_{index}")
            maps.append(x)
        return maps

    def _normalized(self, x: Array) -> Array:
        start = nn.initializers.constant(20.0)
        scale = parameter(self, "backbone.scale_weight", start, (x.shape[-1],))
        square = jnp.square(accumulable(x)).sum(-1, keepdims=True)
        length = jnp.sqrt(jnp.where(square > 0, square, 1.0))  # a root at 0 has no gradient
        return (x / length * scale).astype(x.dtype)

    def _extra(self, x: Array, extra: Extra, train: bool, name: str) -> Array:
        hidden, features, kernel, stride, padding = extra
        if min(x.shape[1:3]) + 2 * padding < kernel:
            raise UserError(
                f"SSD's extra {extra} has a {kernel}x{kernel} convolution, which does not fit a "
                f"map of {x.shape[1]}x{x.shape[2]}: take larger images, fewer extras or a padding."
            )
        if self.separable:
            unit = partial(_conv_norm, dtype=self.dtype)
            x = unit(hidden, name=f"{name}_0")(x, train)
            x = unit(hidden, kernel, stride, padding, groups=hidden, name=f"{name}_1")(x, train)
            return unit(features, name=f"{name}_2")(x, train)
        conv = partial(_conv, dtype=self.dtype)
        x = nn.relu(conv(hidden, 1, name=f"{name}_0")(x))
        return nn.relu(conv(features, kernel, stride, padding, name=f"{name}_2")(x))

    def _check(self, maps: int) -> None:
        wanted = {"ratios": maps, "scales": maps + 1, "steps": maps}
        for name, count in wanted.items():
            given = len(getattr(self, name))
            if given != count and (given or name == "ratios"):
                raise UserError(
                    f"SSD has {maps} maps, {len(self.strides)} of its encoder and "
                    f"{len(self.extras)} extra; they need {count} {name}, not {given}."
                )


def losses(
    logits: Float[Array, "b n k"],
    coded: Float[Array, "b n 4"],
    anchors: Float32[Array, "n 4"],
    targets: Mapping[str, Array] | None,
    threshold: float,
) -> dict[str, Ratio]:
    """Cross-entropy of what has an object and of the worst three times as many others; smooth L1.

    Both are divided by the number of default boxes that have one.

    Args:
      logits, coded, anchors: see `SSD._run`.
      targets: the objects.
      threshold: see `SSD.match_threshold`.

    Raises:
      UserError: there are no targets.
    """
    truth = learnable(targets)
    learns, boxes, label = truth.taken(claimed(truth, anchors, threshold))
    entropy, _ = cross_entropy(logits, jnp.where(learns, label + 1, 0))
    counted = learns | hard_negative_mining(entropy, learns)
    error = smooth_l1(coded, encode_deltas(boxes, anchors, WEIGHTS)).sum(-1)
    count = learns.sum().astype(jnp.float32)
    return {
        "bbox_regression": Ratio(jnp.where(learns, error, 0).sum(), count),
        "classification": Ratio(jnp.where(counted, entropy, 0).sum(), count),
    }


def _layers(state: StateDict) -> list[int]:
    """The numbers of the backbone's layers with parameters, in order."""
    found = (re.match(r"backbone\.features\.(\d+)\.", name) for name in state)
    return sorted({int(match[1]) for match in found if match})


def _from_vgg(state: StateDict) -> StateDict:
    """torchvision has what follows VGG's fourth pooling in the first of the extra blocks."""
    pooling = max(_layers(state), default=0) + 2

    def ours(name: str) -> str:
        found = re.fullmatch(r"backbone\.extra\.0\.(\d+)\.(\d+\.)?(\w+)", name)
        if not found:
            return name
        layer, nested, leaf = found.groups()
        if nested:
            return f"backbone.fc.{nested}{leaf}"
        return f"backbone.features.{pooling + int(layer)}.{leaf}"

    return {ours(name): value for name, value in state.items()}


def _to_vgg(state: StateDict) -> StateDict:
    if "backbone.fc.1.weight" not in state:
        return state
    layers = _layers(state)
    # A pooling takes a number of its own, beside that of the ReLU before it.
    pooling = [a + 2 for a, b in itertools.pairwise(layers) if b - a == 3][3]
    moved = {n: f"extra.0.{n - pooling}" for n in layers if n > pooling}

    def theirs(name: str) -> str:
        name = name.replace("backbone.fc.", f"backbone.extra.0.{layers[-1] + 2 - pooling}.")
        return re.sub(r"features\.(\d+)", lambda m: moved.get(int(m[1]), m[0]), name)

    return {theirs(name): value for name, value in state.items()}


_TAIL = 3  # blocks of MobileNetV3's last stage


def _from_mobilenet(state: StateDict) -> StateDict:
    """torchvision cuts MobileNetV3 in two, behind what widens its last stage's first block."""
    if "backbone.features.0.0.0.weight" not in state:
        return state
    first = (re.match(r"backbone\.features\.0\.(\d+)\.", name) for name in state)
    cut = max(int(match[1]) for match in first if match)

    def ours(name: str) -> str:
        found = re.fullmatch(r"backbone\.features\.([01])\.(\d+)\.(.*)", name)
        if not found:
            return name
        part, layer, rest = int(found[1]), int(found[2]), found[3]
        if part == 0 and layer == cut:
            rest = f"block.0.{rest}"
        if part == 1 and layer == 0:
            rest = f"block.{rest}"
        return f"backbone.features.{layer + part * cut}.{rest}"

    return {ours(name): value for name, value in state.items()}


def _to_mobilenet(state: StateDict) -> StateDict:
    cut = max(_layers(state), default=0) - _TAIL
    if f"backbone.features.{cut}.block.0.0.weight" not in state:
        return state

    def theirs(name: str) -> str:
        found = re.fullmatch(r"backbone\.features\.(\d+)\.(.*)", name)
        if not found:
            return name
        layer, rest = int(found[1]), found[2]
        if layer < cut:
            return f"backbone.features.0.{layer}.{rest}"
        if layer > cut:
            return f"backbone.features.1.{layer - cut}.{rest}"
        rest = rest.removeprefix("block.")
        if rest.startswith("0."):
            return f"backbone.features.0.{cut}.{rest.removeprefix('0.')}"
        return f"backbone.features.1.0.{rest}"

    return {theirs(name): value for name, value in state.items()}


def _vgg(side: int, reference: str, **options: Any) -> Variant:
    return Variant(
        SSD,
        {
            "encoder": "vgg16",
            "encoder_options": {"ceil_mode": True},
            "normalize": True,
            "linear": 1024,
            **options,
        },
        reference,
        (side, side, 3),
        "Liu et al. 2015, https://arxiv.org/abs/1512.02325",
        classifier=tuple(
            f"head.classification_head.module_list.{k}" for k in range(len(options["steps"]))
        ),
        first="backbone.features.0",
        convert=_from_vgg,
        export=_to_vgg,
    )


_HALVED = (128, 256, 3, 2, 1)
_UNPADDED = (128, 256, 3, 1, 0)
VARIANTS = {
    "ssd300_vgg16": _vgg(
        300,
        "torchvision ssd300_vgg16",
        extras=((256, 512, 3, 2, 1), _HALVED, _UNPADDED, _UNPADDED),
        scales=(0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
        steps=(8, 16, 32, 64, 100, 300),
    ),
    "ssd512_vgg16": _vgg(
        512,
        "torchvision's parts of ssd300_vgg16, as github.com/weiliu89/caffe",
        extras=((256, 512, 3, 2, 1), _HALVED, _HALVED, _HALVED, (128, 256, 4, 1, 1)),
        ratios=((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        scales=(0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06),
        steps=(8, 16, 32, 64, 128, 256, 512),
    ),
    "ssdlite320_mobilenet_v3_large": Variant(
        SSD,
        {
            "encoder": "mobilenet_v3_large",
            "encoder_options": {
                "reduced_tail": True,
                "widened": True,
                "last_conv": True,
                "momentum": 0.97,
            },
            "strides": (16, 32),
            "separable": True,
            "extras": tuple((width // 2, width, 3, 2, 1) for width in (512, 256, 256, 128)),
            "ratios": ((2, 3),) * 6,
            "min_scale": 0.2,
            "max_scale": 0.95,
            "score_threshold": 0.001,
            "nms_threshold": 0.55,
            "max_detections": 300,
            "candidates": 300,
        },
        "torchvision ssdlite320_mobilenet_v3_large",
        (320, 320, 3),
        "Howard et al. 2019, https://arxiv.org/abs/1905.02244",
        classifier=tuple(f"head.classification_head.module_list.{k}.1" for k in range(6)),
        first="backbone.features.0.0",
        convert=_from_mobilenet,
        export=_to_mobilenet,
    ),
}
