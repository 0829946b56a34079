"""YOLO v1: one look at the image, whose cells say what object has its centre in them.

Redmon et al., You Only Look Once, 2015, https://arxiv.org/abs/1506.02640. Reference: holocron's
`yolov1`, whose hidden layer has 512 units and not 4096. Its losses are here as they are there, also
where they are not the paper's:

- a box's sides are predicted as shares of the image, and their roots compared;
- places are compared as shares of the image and not of the cell;
- that objectness should be the overlap teaches the box as well: the gradient goes through both.

One thing is mended: there the sides of a box are compared with those of all objects of the image,
here with those of its own.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.head import flatten
from jaxvision.layers.linear import Dense
from jaxvision.losses import Ratio
from jaxvision.models.backbones.darknet import leaky_relu, sequence
from jaxvision.models.detection.outputs import select
from jaxvision.models.detection.targets import Targets, learnable
from jaxvision.models.variant import Variant
from jaxvision.ops import boxes as box_ops
from jaxvision.ops.forms import accumulable
from jaxvision.state_dict import StateDict

_OBJECT, _NO_OBJECT, _BOX, _CLASS = 1.0, 0.5, 5.0, 1.0  # weights of the losses


class Cells(NamedTuple):
    """What is predicted in each cell of a grid; lengths are shares of the image.

    Attributes:
      centers: of the boxes.
      sides: width and height.
      roots: those of the sides, which have a gradient where a side is rounded to nothing.
      objectness: 0 to 1.
      classes: their probabilities, of each box or (a is 1) of all boxes of a cell.
    """

    centers: Float[Array, "b h w a 2"]
    sides: Float[Array, "b h w a 2"]
    roots: Float[Array, "b h w a 2"]
    objectness: Float[Array, "b h w a"]
    classes: Float[Array, "b h w _ k"]

    @property
    def boxes(self) -> Float[Array, "b h w a 4"]:
        """(x0, y0, x1, y1)."""
        return box_ops.from_centers(jnp.concatenate([self.centers, self.sides], -1))


class YOLOv1(nn.Module):
    """A detector; see docs/detection.md for what it is given and gives.

    It has one number of cells: that of the images that it was initialised with.

    Attributes:
      encoder: a backbone, whose last map is looked at.
      width: channels of the four convolutions after it.
      stride: of the second of them. With the usual backbone a cell has 64 pixels.
      norm: whether they have a batch norm instead of a bias.
      hidden: units of the hidden layer.
      boxes: of a cell.
      dropout: after the hidden layer.
      score_threshold, nms_threshold, max_detections: see `select`.
    """

    ENDS = ("classes",)
    ENCODER: ClassVar[str] = "backbone"
    preserve_adopted_names: ClassVar[bool] = True

    num_classes: int = 20
    encoder: Any = None
    width: int = 1024
    stride: int = 2
    norm: bool = False
    hidden: int = 512
    boxes: int = 2
    dropout: float = 0.5
    score_threshold: float = 0.05
    nms_threshold: float = 0.7
    max_detections: int = 100
    dtype: Any = None

    def heads(self, image: Float[Array, "b h w c"], train: bool = False) -> dict[str, Array]:
        """What the network gives, before its activations: `box` [b, n, 4] (offsets in the cell,
        width and height), `objectness` [b, n, 1], and of each cell `classes` [b, cells, k]."""
        predictions, classes = self._predictions(image, train)
        flat = predictions.reshape(image.shape[0], -1, 5)
        return {
            "box": flat[..., :4],
            "objectness": flat[..., 4:],
            "classes": classes.reshape(image.shape[0], -1, self.num_classes),
        }

    @nn.compact
    def _predictions(self, image: Array, train: bool) -> tuple[Array, Array]:
        """(boxes and objectness [b, h, w, a, 5], classes [b, h, w, k])."""
        x = self.encoder(image, train)[-1]
        layers = sequence(self, "block4", 0, self.norm)
        x = layers(x, train, *((self.width, 3, stride) for stride in (1, self.stride, 1, 1)))
        *grid, each = *x.shape[:3], self.boxes * 5
        x = leaky_relu(Dense(self.hidden, dtype=self.dtype, name="classifier_1")(flatten(x)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        size = grid[1] * grid[2] * (each + self.num_classes)
        x = accumulable(Dense(size, dtype=self.dtype, name="classifier_4")(x))
        x = x.reshape(*grid, each + self.num_classes)
        return x[..., :each].reshape(*grid, self.boxes, 5), x[..., each:]

    def __call__(
        self,
        image: Float[Array, "b h w c"],
        train: bool = False,
        targets: Targets | None = None,
    ) -> dict[str, Array] | dict[str, Ratio]:
        predictions, classes = self._predictions(image, train)
        cells = activated(predictions, classes)
        if train:
            return losses(cells, targets, image.shape[1:3])
        return detections(self, cells, image.shape[1:3])


def activated(predictions: Float[Array, "b h w a 5"], classes: Float[Array, "b h w k"]) -> Cells:
    """What raw predictions mean: offsets of the centre, sides, objectness; classes."""
    return Cells(
        centers(predictions),
        jax.nn.sigmoid(predictions[..., 2:4]),
        jnp.exp(jax.nn.log_sigmoid(predictions[..., 2:4]) / 2),
        jax.nn.sigmoid(predictions[..., 4]),
        jax.nn.softmax(classes)[..., None, :],
    )


def centers(predictions: Float[Array, "b h w a d"]) -> Float[Array, "b h w a 2"]:
    """Of boxes, as shares of the image; the first two predictions are offsets in the cell."""
    height, width = predictions.shape[1:3]
    rows, columns = jnp.mgrid[:height, :width]
    cells = jnp.stack([columns, rows], -1)[:, :, None]
    return (jax.nn.sigmoid(predictions[..., :2]) + cells) / jnp.array([width, height])


def detections(detector: Any, cells: Cells, size: Sequence[int]) -> dict[str, Array]:
    """The boxes of all cells with their best classes; see `select`.

    Args:
      detector: has `score_threshold`, `nms_threshold` and `max_detections`.
      cells: what is predicted.
      size: (height, width) of the image.
    """
    rows, (height, width) = cells.objectness.shape[0], size
    scores = cells.classes.max(-1) * cells.objectness
    labels = jnp.broadcast_to(cells.classes.argmax(-1), scores.shape)
    return select(
        (cells.boxes * jnp.array([width, height] * 2)).reshape(rows, -1, 4),
        scores.reshape(rows, -1),
        labels.reshape(rows, -1),
        size,
        score_threshold=detector.score_threshold,
        nms_threshold=detector.nms_threshold,
        max_detections=detector.max_detections,
    )


def losses(cells: Cells, targets: Targets | None, size: Sequence[int]) -> dict[str, Ratio]:
    """Squared errors of objectness, of its absence, of boxes and of classes, sums of an image.

    An object is learnt in the cell of its centre, by the box there that overlaps it most; its class
    by all boxes there.

    Args:
      cells: what is predicted.
      targets: the objects, in pixels.
      size: (height, width) of the image.
    """
    batch, height, width, _ = cells.objectness.shape
    objects = learnable(targets)
    there = objects.valid
    boxes = objects.boxes / jnp.array([size[1], size[0]] * 2)
    truth = box_ops.to_centers(boxes)
    column, row = (
        jnp.clip(jnp.floor(truth[..., axis] * count), 0, count - 1).astype(jnp.int32)
        for axis, count in enumerate((width, height))
    )
    image = jnp.arange(batch)[:, None]

    def at_objects(values: Array) -> Array:
        return values[image, row, column]

    overlaps = box_ops.iou(boxes[:, :, None], at_objects(cells.boxes))
    best = overlaps.argmax(-1)

    def of_best(values: Array) -> Array:
        index = best.reshape(*best.shape, *[1] * (values.ndim - 2))
        return jnp.take_along_axis(values, index, 2)[:, :, 0]

    error = jnp.square(of_best(overlaps) - of_best(at_objects(cells.objectness)))
    classes = jax.nn.one_hot(objects.labels, cells.classes.shape[-1])[:, :, None]
    places = jnp.square(truth[..., :2] - of_best(at_objects(cells.centers)))
    sides = jnp.square(jnp.sqrt(truth[..., 2:]) - of_best(at_objects(cells.roots)))
    empty = jnp.broadcast_to(objects.rows[:, None, None, None], cells.objectness.shape)
    empty = empty.at[image, jnp.where(there, row, height), column, best].set(False, mode="drop")
    images = objects.rows.sum().astype(jnp.float32)

    def total(weight: float, errors: Array, mask: Array) -> Ratio:
        return Ratio(weight * jnp.where(mask, errors, 0.0).sum(), images)

    return {
        "obj_loss": total(_OBJECT, error, there),
        "noobj_loss": total(_NO_OBJECT, jnp.square(cells.objectness), empty),
        "bbox_loss": total(_BOX, (places + sides).sum(-1), there),
        "clf_loss": total(
            _CLASS, jnp.square(classes - at_objects(cells.classes)).sum((2, 3)), there
        ),
    }


def convert(state: StateDict) -> StateDict:
    """holocron's Darknets are in its detectors without the name `features`."""
    if "backbone.stem.0.weight" not in state:
        return dict(state)
    return {_moved(name, "backbone.", "backbone.features."): v for name, v in state.items()}


def export(state: StateDict) -> StateDict:
    """The inverse of `convert`."""
    return {_moved(name, "backbone.features.", "backbone."): v for name, v in state.items()}


def _moved(name: str, old: str, new: str) -> str:
    return new + name.removeprefix(old) if name.startswith(old) else name


VARIANTS = {
    "yolov1": Variant(
        YOLOv1,
        {"encoder": "darknet24"},
        "holocron yolov1",
        (448, 448, 3),
        "Redmon et al. 2015, https://arxiv.org/abs/1506.02640",
        classifier=("classifier.4",),
        first="backbone.features.stem.0",
        convert=convert,
        export=export,
    )
}
