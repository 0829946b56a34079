"""EfficientDet: a pyramid that is fused to and fro several times, and separable heads.

Tan et al., EfficientDet: Scalable and Efficient Object Detection, 2019,
https://arxiv.org/abs/1911.09070. Reference: effdet's `tf_efficientdet_d0` ..., which compute as the
authors' TensorFlow code.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer
from jaxtyping import Array, Float, Float32

from jaxvision.errors import UserError, unknown
from jaxvision.layers.conv_norm import ConvNormAct
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.normalization import BatchNorm
from jaxvision.layers.parameters import parameter
from jaxvision.layers.pyramid import by_stride, required
from jaxvision.losses import Ratio, sigmoid_focal, smooth_l1
from jaxvision.models.detection.outputs import select_from_levels
from jaxvision.models.detection.targets import claimed, learnable
from jaxvision.models.variant import Variant
from jaxvision.ops.anchors import efficientdet_anchors
from jaxvision.ops.boxes import decode_deltas, encode_deltas
from jaxvision.ops.forms import accumulable
from jaxvision.ops.pooling import max_pool2d
from jaxvision.ops.resize import resize

FUSIONS = ("fast", "sum")
_STRIDES = (8, 16, 32)
_FIRST = 3  # the level of stride 2 ** 3
_ANCHORS = 9  # at a place: three sizes of three ratios
_DELTA, _BOX_WEIGHT = 0.1, 50.0
_glorot = nn.initializers.glorot_uniform()
_scaled = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
_norm = partial(BatchNorm, 0.99, 1e-3)


class _SeparableConv(nn.Module):
    """A depthwise 3x3 convolution and a 1x1 one, perhaps with batch norm.

    Attributes:
      norm: whether there is one, after the second convolution's bias.
      start: the initialiser of both kernels.
      bias: what the bias starts at.
    """

    features: int
    norm: bool = False
    start: Initializer = _scaled
    bias: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        conv = partial(Conv2d, dtype=self.dtype, kernel_init=self.start)
        width = x.shape[-1]
        x = conv(width, 3, groups=width, use_bias=False, name="conv_dw")(x)
        bias = nn.initializers.constant(self.bias)
        x = conv(self.features, 1, bias_init=bias, name="conv_pw")(x)
        return _norm(dtype=self.dtype, name="bn")(x, train) if self.norm else x


class _Resample(nn.Module):
    """A map in another width, by a 1x1 convolution with batch norm, and of another size.

    Attributes:
      features: channels; where the map has as many there is no convolution.
    """

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: tuple[int, int], train: bool
    ) -> Float[Array, "b i j d"]:
        """Brings `x` to `size`, mostly twice or half its own."""
        if x.shape[-1] != self.features:
            x = ConvNormAct(
                self.features,
                use_bias=True,
                epsilon=1e-3,
                momentum=0.99,
                act=None,
                kernel_init=_glorot,
                dtype=self.dtype,
                name="conv",
            )(x, train)
        height, width = x.shape[1:3]
        if height > size[0] or width > size[1]:
            # TensorFlow's padding: on both sides of odd lengths, and at the end of even ones. None
            # where the encoder rounds odd lengths down.
            padding = max(0, 2 * size[0] - height), max(0, 2 * size[1] - width)
            x = max_pool2d(x, 3, 2, padding, ceil_mode=True)
        return x if x.shape[1:3] == size else resize(x, size, "nearest")


class _Node(nn.Module):
    """Maps of neighbouring levels brought to one size, added up by learnt weights, and convolved.

    Attributes:
      width: channels.
      sources: the numbers of the maps in the pyramid, which name their layers.
      fusion: see `EfficientDet`.
    """

    width: int
    sources: Sequence[int]
    fusion: str
    dtype: Any = None

    @nn.compact
    def __call__(
        self, maps: Sequence[Float[Array, "b _ _ _"]], size: tuple[int, int], train: bool
    ) -> Float[Array, "b h w d"]:
        inputs = [
            _Resample(self.width, self.dtype, name=f"combine.resample.{source}")(x, size, train)
            for source, x in zip(self.sources, maps, strict=True)
        ]
        if self.fusion == "fast":
            ones = nn.initializers.ones
            raw = nn.relu(parameter(self, "combine.edge_weights", ones, (len(inputs),)))
            weights = (raw / (raw.sum() + 1e-4)).astype(inputs[0].dtype)
            inputs = [x * weight for x, weight in zip(inputs, weights)]
        x = nn.silu(sum(inputs[1:], inputs[0]))
        conv = _SeparableConv(
            self.width, True, _glorot, dtype=self.dtype, name="after_combine.conv"
        )
        return conv(x, train)


def _fused(levels: int) -> list[tuple[int, list[int]]]:
    """Of each node of a layer its level and which maps it takes, the layer's inputs counted first.

    From coarse to fine, then back (the paper's figure 2d).
    """
    made = [[level] for level in range(levels)]
    nodes: list[tuple[int, list[int]]] = []
    for level in reversed(range(levels - 1)):
        nodes.append((level, [made[level][-1], made[level + 1][-1]]))
        made[level].append(levels + len(nodes) - 1)
    for level in range(1, levels):
        nodes.append((level, [*made[level], made[level - 1][-1]]))
        made[level].append(levels + len(nodes) - 1)
    return nodes


class _Head(nn.Module):
    """Separable convolutions that all levels share, with batch norms of each level's own.

    Attributes:
      size: numbers of an anchor.
      depth: convolutions before the last.
      width: their channels.
      prior: the sigmoid of what the output starts at; 0 starts it at zero.
    """

    size: int
    depth: int
    width: int
    prior: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(
        self, levels: Sequence[Float[Array, "b _ _ d"]], train: bool
    ) -> Float[Array, "b n size"]:
        convs = [
            _SeparableConv(self.width, dtype=self.dtype, name=f"conv_rep_{index}")
            for index in range(self.depth)
        ]
        start = -math.log((1 - self.prior) / self.prior) if self.prior else 0.0
        last = _SeparableConv(_ANCHORS * self.size, bias=start, dtype=self.dtype, name="predict")
        found = []
        for level, x in enumerate(levels):
            for index, conv in enumerate(convs):
                norm = _norm(dtype=self.dtype, name=f"bn_rep.{index}.{level}.bn")
                x = nn.silu(norm(conv(x, train), train))
            found.append(accumulable(last(x, train)).reshape(x.shape[0], -1, self.size))
        return jnp.concatenate(found, 1)


class EfficientDet(nn.Module):
    """A detector; see docs/detection.md for what it is given and gives.

    Attributes:
      encoder: a backbone with maps of strides 8, 16 and 32.
      width: channels of the pyramid and the heads.
      repeats: layers of the pyramid, each down and up again.
      depth: convolutions of each head before its last.
      last_level: of the pyramid, which starts at level 3; level k has the stride 2 ** k.
      fusion: how maps are added: "fast", by weights that are learnt, or "sum".
      anchor_scale: see `efficientdet_anchors`.
      match_threshold: the IoU from which an anchor learns an object; each object's best one does in
        any case.
      score_threshold, nms_threshold, max_detections: see `select`.
      candidates: boxes of all levels before suppression.
    """

    ENDS = ("classes",)
    ENCODER: ClassVar[str] = "backbone"
    preserve_adopted_names: ClassVar[bool] = True

    num_classes: int = 90
    encoder: Any = None
    width: int = 64
    repeats: int = 3
    depth: int = 3
    last_level: int = 7
    fusion: str = "fast"
    anchor_scale: float = 4.0
    match_threshold: float = 0.5
    score_threshold: float = 0.0
    nms_threshold: float = 0.5
    max_detections: int = 100
    candidates: int = 5000
    dtype: Any = None

    def heads(self, image: Float[Array, "b h w c"], train: bool = False) -> dict[str, Array]:
        """What the heads give for all anchors: `class_net` and `box_net` (y, x, height, width)."""
        logits, coded = self._run(image, train)
        return {"class_net": logits, "box_net": coded}

    def __call__(
        self,
        image: Float[Array, "b h w c"],
        train: bool = False,
        targets: Mapping[str, Array] | None = None,
    ) -> dict[str, Array] | dict[str, Ratio]:
        logits, coded = self._run(image, train)
        # From (y, x, height, width), as the network codes boxes.
        coded = coded.reshape(*coded.shape[:2], 2, 2)[..., ::-1].reshape(coded.shape)
        size = (image.shape[1], image.shape[2])
        levels = (_FIRST, self.last_level)
        anchors = jnp.asarray(
            efficientdet_anchors(size, levels=levels, anchor_scale=self.anchor_scale)
        )
        if train:
            return losses(logits, coded, anchors, targets, self.match_threshold)

        def decode(coded: Array, place: Array) -> Array:
            return decode_deltas(coded, anchors[place], max_log_scale=math.inf)

        return select_from_levels(self, [(jax.nn.sigmoid(logits), coded, decode)], size)

    @nn.compact
    def _run(self, image: Array, train: bool) -> tuple[Array, Array]:
        """(logits [b, n, k], coded boxes [b, n, 4])."""
        levels = self._pyramid(image, train)
        head = partial(_Head, depth=self.depth, width=self.width, dtype=self.dtype)
        logits = head(self.num_classes, prior=0.01, name="class_net")(levels, train)
        return logits, head(4, name="box_net")(levels, train)

    def _pyramid(self, image: Array, train: bool) -> list[Array]:
        if self.fusion not in FUSIONS:
            raise unknown("fusion of EfficientDet", self.fusion, FUSIONS)
        levels = self.last_level - _FIRST + 1
        if levels < len(_STRIDES):
            raise UserError(
                f"EfficientDet's last_level is {self.last_level}; its encoder's maps alone reach "
                f"level {_FIRST + len(_STRIDES) - 1}."
            )
        found = by_stride(self.encoder, image, self.encoder(image, train))
        maps = required(found, _STRIDES, "EfficientDet")
        for level in range(len(_STRIDES), levels):
            height, width = maps[-1].shape[1:3]
            coarser = _Resample(self.width, self.dtype, name=f"fpn.resample.{level}")
            maps.append(coarser(maps[-1], (-(-height // 2), -(-width // 2)), train))
        sizes = [(x.shape[1], x.shape[2]) for x in maps]
        for repeat in range(self.repeats):
            for index, (level, sources) in enumerate(_fused(levels)):
                name = f"fpn.cell.{repeat}.fnode.{index}"
                node = _Node(self.width, sources, self.fusion, self.dtype, name=name)
                maps.append(node([maps[source] for source in sources], sizes[level], train))
            maps = maps[-levels:]
        return maps


def losses(
    logits: Float[Array, "b n k"],
    coded: Float[Array, "b n 4"],
    anchors: Float32[Array, "n 4"],
    targets: Mapping[str, Array] | None,
    threshold: float,
) -> dict[str, Ratio]:
    """Focal loss of the classes, and Huber loss of the coded boxes, times 50.

    Both are divided by one more than the anchors of the batch that have an object, the boxes' also
    by 4, their coordinates.

    Args:
      logits, coded: of each anchor; boxes as `encode_deltas` codes them.
      anchors: see `EfficientDet`.
      targets: the objects.
      threshold: see `EfficientDet.match_threshold`.

    Raises:
      UserError: there are no targets.
    """
    truth = learnable(targets)
    found = claimed(truth, anchors, threshold, winner="first")
    learns, boxes, label = truth.taken(found)
    classes = jax.nn.one_hot(jnp.where(learns, label, -1), logits.shape[-1])
    focal = sigmoid_focal(logits, classes, gamma=1.5)
    wanted = encode_deltas(jnp.where(learns[..., None], boxes, anchors), anchors)
    error = _DELTA * smooth_l1(coded, wanted, _DELTA)
    # As in the reference, where 0 stands for nothing to learn, a coordinate that is right is free.
    counted = learns[..., None] & (wanted != 0)
    count = learns.sum().astype(jnp.float32) + 1
    return {
        "class_loss": Ratio(jnp.where(truth.rows[:, None, None], focal, 0).sum(), count),
        "box_loss": Ratio(_BOX_WEIGHT / 4 * jnp.where(counted, error, 0).sum(), count),
    }


def _variant(number: int, side: int, repeats: int, width: int, depth: int, **more: Any) -> Variant:
    return Variant(
        EfficientDet,
        {
            "encoder": f"tf_efficientnet_b{min(number, 6)}",
            "width": width,
            "repeats": repeats,
            "depth": depth,
            **more,
        },
        f"effdet tf_efficientdet_d{number}",
        (side, side, 3),
        "Tan et al. 2019, https://arxiv.org/abs/1911.09070",
        classifier=("class_net.predict.conv_pw",),
        first="backbone.conv_stem",
    )


# Weights of the sums would make training unstable in the largest.
_SUM = {"fusion": "sum"}
VARIANTS = {
    "tf_efficientdet_d0": _variant(0, 512, 3, 64, 3),
    "tf_efficientdet_d1": _variant(1, 640, 4, 88, 3),
    "tf_efficientdet_d2": _variant(2, 768, 5, 112, 3),
    "tf_efficientdet_d3": _variant(3, 896, 6, 160, 4),
    "tf_efficientdet_d4": _variant(4, 1024, 7, 224, 4),
    "tf_efficientdet_d5": _variant(5, 1280, 7, 288, 4),
    "tf_efficientdet_d6": _variant(6, 1280, 8, 384, 5, **_SUM),
    "tf_efficientdet_d7": _variant(7, 1536, 8, 384, 5, anchor_scale=5.0, **_SUM),
}
