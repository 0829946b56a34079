"""Heads on regions of interest: Girshick, Fast R-CNN, 2015, https://arxiv.org/abs/1504.08083.

Reference: torchvision's `RoIHeads` with its `TwoMLPHead`, `FastRCNNConvFCHead` and
`FastRCNNPredictor`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import flatten
from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import BatchNorm
from jaxvision.losses.classification import cross_entropy
from jaxvision.losses.detection import smooth_l1
from jaxvision.losses.objective import Ratio
from jaxvision.models.detection.outputs import select
from jaxvision.models.detection.rpn import Learning, Proposals, Sampling, assign
from jaxvision.models.detection.targets import Boxes
from jaxvision.ops.boxes import clip, decode_deltas, encode_deltas
from jaxvision.ops.forms import accumulable
from jaxvision.ops.matching import balanced_sample

WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the boxes' coding
_BETA = 1 / 9  # from where on the boxes' loss is linear
_AT_ONCE = 4096  # pairs of a proposal and a class that suppression looks at, the best ones


class Samples(NamedTuple):
    """The proposals of each image that are learnt from."""

    boxes: Float[Array, "b n 4"]
    labels: Int[Array, "b n"]  # 0 is background
    wanted: Float[Array, "b n 4"]  # coded
    matches: Int[Array, "b n"]  # the object that each has
    valid: Bool[Array, "b n"]

    def of_objects(self, count: int) -> "Samples":
        """`count` of each image, those with an object first; only these are valid."""
        positive = self.valid & (self.labels > 0)
        valid, index = lax.top_k(positive.astype(jnp.int32), min(count, positive.shape[1]))
        chosen = jax.tree.map(lambda x: jax.vmap(lambda x, at: x[at])(x, index), self)
        return chosen._replace(valid=valid > 0)


def draw(proposals: Proposals, truth: Boxes, sampling: Sampling, key: PRNGKeyArray) -> Samples:
    """Some proposals, the objects themselves among them, by how they overlap objects."""
    candidates = jnp.concatenate([proposals.boxes, truth.boxes.astype(proposals.boxes.dtype)], 1)
    there = jnp.concatenate([proposals.valid & truth.rows[:, None], truth.valid], 1)
    count = min(sampling.number, candidates.shape[1])

    def one(
        places: Array, there: Array, boxes: Array, labels: Array, valid: Array, key: PRNGKeyArray
    ) -> Samples:
        match, label = assign(places, boxes, valid, sampling, allow_low_quality=False)
        label = jnp.where(there, label, -1)
        positive, negative = balanced_sample(label, key, count, sampling.positive_share)
        drawn, index = lax.top_k((positive | negative).astype(jnp.int32), count)
        place, match = places[index], match[index]
        return Samples(
            place,
            jnp.where(positive[index], labels[match] + 1, 0),
            encode_deltas(boxes[match].astype(place.dtype), place, WEIGHTS),
            match,
            drawn > 0,
        )

    keys = jax.random.split(key, len(candidates))
    samples = jax.vmap(one)(candidates, there, truth.boxes, truth.labels, truth.valid, keys)
    return jax.tree.map(lax.stop_gradient, samples)


class BoxHead(nn.Module):
    """What is in each region, as one vector: 3x3 convolutions, then linear layers.

    Attributes:
      hidden: channels of the linear layers.
      convs: channels of the convolutions, which are batch-normalised; torchvision's names depend on
        whether there are any.
      dropout: after each linear layer.
    """

    hidden: Sequence[int] = (1024, 1024)
    convs: Sequence[int] = ()
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool, rows: Bool[Array, " n"] | None = None
    ) -> Float[Array, "n d"]:
        """In training `rows` say which regions are no padding, and have statistics."""
        for index, width in enumerate(self.convs):
            x = Conv2d(width, use_bias=False, dtype=self.dtype, name=f"{index}_0")(x)
            x = nn.relu(BatchNorm(dtype=self.dtype, name=f"{index}_1")(x, train, rows))
        x = flatten(x)
        for index, width in enumerate(self.hidden):
            name = str(len(self.convs) + 1 + 2 * index) if self.convs else f"fc{6 + index}"
            x = nn.relu(Dense(width, dtype=self.dtype, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x


class BoxPredictor(nn.Module):
    """Scores of the background and the classes, and a box of each."""

    num_classes: int
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b d"]
    ) -> tuple[Float[Array, "*b k"], Float[Array, "*b k 4"]]:
        outputs = self.num_classes + 1
        logits = Dense(outputs, dtype=self.dtype, name="cls_score")(x)
        deltas = Dense(4 * outputs, dtype=self.dtype, name="bbox_pred")(x)
        return accumulable(logits), accumulable(deltas).reshape(*x.shape[:-1], outputs, 4)


def box_losses(
    logits: Float[Array, "b n k"],
    deltas: Float[Array, "b n j 4"],
    samples: Samples,
    hardest: int = 0,
) -> dict[str, Ratio]:
    """Cross-entropy of the drawn proposals, and smooth L1 of the true class's boxes.

    Args:
      logits: of the background and the classes.
      deltas: of each, or one for all.
      samples: the drawn proposals.
      hardest: of each image only so many with the highest losses count (Shrivastava et al.,
        Training Region-based Object Detectors with Online Hard Example Mining, 2016,
        https://arxiv.org/abs/1604.03540); 0: all.
    """
    entropy, _ = cross_entropy(logits, samples.labels)
    of_each = jnp.broadcast_to(deltas, (*logits.shape, 4))
    own = jnp.take_along_axis(of_each, samples.labels[..., None, None], 2)[..., 0, :]
    distance = jnp.where(samples.labels > 0, smooth_l1(own, samples.wanted, _BETA).sum(-1), 0)
    counted = samples.valid
    if hardest:
        loss = lax.stop_gradient(jnp.where(counted, entropy + distance, -1))
        order = jnp.argsort(-loss, axis=-1, stable=True)
        counted &= jnp.argsort(order, axis=-1) < hardest
    count = counted.sum().astype(entropy.dtype)
    return {
        "loss_classifier": Ratio(jnp.where(counted, entropy, 0).sum(), count),
        "loss_box_reg": Ratio(jnp.where(counted, distance, 0).sum(), count),
    }


# (boxes, which are no padding) to what the heads put out.
Classify = Callable[
    [Float[Array, "b n 4"], Bool[Array, "b n"]],
    tuple[Float[Array, "b n k"], Float[Array, "b n j 4"]],
]


def second_stage(
    detector: Any,
    proposals: Proposals,
    classify: Classify,
    image_size: tuple[int, int],
    learning: Learning | None,
    raw: bool = False,
    hardest: int = 0,
) -> tuple[dict[str, Any], Samples | None]:
    """What is made of proposals: losses of some of them, and these, or detections.

    Args:
      detector: has `box_sampling`, `score_threshold`, `nms_threshold` and `max_detections`, see
        `RegionDetector`.
      proposals: the regions that are looked at.
      classify: the heads, called once with boxes to look at.
      image_size: (height, width) in pixels.
      learning: in training.
      raw: whether `logits` and `deltas` of all proposals are wanted instead.
      hardest: see `box_losses`.
    """
    if learning is not None:
        sampling = Sampling(*detector.box_sampling)
        samples = draw(proposals, learning.truth, sampling, learning.key)
        outputs = classify(samples.boxes, samples.valid)
        return dict(box_losses(*outputs, samples, hardest)), samples
    logits, deltas = classify(proposals.boxes, proposals.valid)
    if raw:
        return {"logits": logits, "deltas": deltas}, None
    found = detect(
        logits,
        deltas,
        proposals,
        image_size,
        detector.score_threshold,
        detector.nms_threshold,
        detector.max_detections,
    )
    return found, None


def detect(
    logits: Float[Array, "b n k"],
    deltas: Float[Array, "b n j 4"],
    proposals: Proposals,
    image_size: tuple[int, int],
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> dict[str, Array]:
    """The detections of each image, by falling score.

    Args:
      logits, deltas: of the heads, for each proposal; of deltas perhaps one for all classes.
      proposals: what was looked at.
      image_size: (height, width) that boxes are clipped to.
      score_threshold, nms_threshold, max_detections: see `select`.
    """
    scores = jax.nn.softmax(logits)[..., 1:]
    classes = scores.shape[-1]
    deltas = jnp.broadcast_to(deltas, (*logits.shape, 4))
    boxes = clip(decode_deltas(deltas[:, :, 1:], proposals.boxes[:, :, None], WEIGHTS), *image_size)
    large = jnp.all(boxes[..., 2:] - boxes[..., :2] >= 1e-2, -1)
    flat = jnp.where(large & proposals.valid[..., None], scores, -1).reshape(scores.shape[0], -1)
    best, index = lax.top_k(flat, min(_AT_ONCE, flat.shape[1]))
    boxes = jnp.take_along_axis(boxes.reshape(boxes.shape[0], -1, 4), index[..., None], 1)
    return select(
        boxes,
        best,
        index % classes,
        image_size,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        max_detections=max_detections,
    )
