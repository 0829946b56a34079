"""Procedurally drawn scenes of shapes, annotated for every task, of any size and number."""

import dataclasses
import io
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from jaxvision.data.builders import drawing
from jaxvision.data.builders.drawn import DrawnBuilder, DrawnConfig
from jaxvision.data.facts import Facts

_DESCRIPTION = """\
Scenes of 1 to 6 textured shapes (circle, square, triangle, star, ring, cross, pentagon, heart,
crescent, arrow) on textured backgrounds, drawn by jaxvision from a seed: rotation, anisotropic
scale, occlusion, shading, cast shadows, blur and sensor noise. Colour says nothing about the class.

Annotations: the class of the largest object, boxes around visible pixels, instance and semantic
masks, four key points for each object, and a caption.
"""


@dataclasses.dataclass(kw_only=True)
class ShapesConfig(DrawnConfig):
    """Which scenes to draw; size is height and width of the images in pixels."""

    KIND, UNIT, LARGEST = "shapes", "px", 4096


class Shapes(DrawnBuilder):
    """Records as `drawing.draw` gives them, images and masks stored as PNG.

    `Shapes(config=ShapesConfig(size=96, train=1000, test=200))` draws any other number and size.
    """

    name = "shapes"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Ten classes, all annotations."}
    BUILDER_CONFIGS = [ShapesConfig()]
    # Mirroring exchanges other points in each class (those of a heart, none of an arrow, and a
    # square's three corners become others), so that there are no pairs for all of them.
    FACTS = Facts(
        keypoint_names=("centre", "first", "second", "third"),
        skeleton=((0, 1), (0, 2), (0, 3)),
        things=tuple(range(len(drawing.CLASSES))),
    )

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        mask = tfds.features.Image(shape=(size, size, 1), encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            license="Apache-2.0",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=drawing.CLASSES),
                    "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
                    # The classes are those of `label`. (A Sequence would read back as a list.)
                    "box_label": tfds.features.Tensor(shape=(None,), dtype=np.int64),
                    "instances": mask,
                    "segmentation": mask,
                    "keypoints": tfds.features.Tensor(
                        shape=(None, drawing.KEYPOINTS, 3), dtype=np.float32
                    ),
                    "caption": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # records are independent already: record i is index i
        )

    def record(self, seed: int, index: int, size: int) -> dict[str, Any]:
        record = drawing.draw(seed, index, size)
        record["image"] = _png(record["image"][..., ::-1])  # OpenCV encodes BGR
        for key in ("instances", "segmentation"):
            record[key] = _png(record[key])
        return record


def _png(image: np.ndarray) -> io.BytesIO:
    return io.BytesIO(cv2.imencode(".png", image)[1].tobytes())
