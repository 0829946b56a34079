"""Procedurally drawn scenes of shapes, annotated for every task, of any size and number."""

import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from jaxvision.data.builders import drawing
from jaxvision.data.builders.drawn import FIRST_TEST_INDEX, checked_name

_DESCRIPTION = """\
Scenes of 1 to 6 textured shapes (circle, square, triangle, star, ring, cross, pentagon, heart,
crescent, arrow) on textured backgrounds, drawn by jaxvision from a seed: rotation, anisotropic
scale, occlusion, shading, cast shadows, blur and sensor noise. Colour says nothing about the class.

Annotations: the class of the largest object, boxes around visible pixels, instance and semantic
masks, four key points for each object, and a caption.
"""


@dataclasses.dataclass(kw_only=True)
class ShapesConfig(tfds.core.BuilderConfig):
    """Which scenes to draw. The configuration's name follows from the fields.

    Attributes:
      size: height and width of the images in pixels, at least 16.
      train: number of training records.
      test: number of test records.
      seed: the seed of all records, at least 0.
    """

    name: str = dataclasses.field(default="", init=False)
    size: int = 64
    train: int = 4000
    test: int = 1000
    seed: int = 0

    def __post_init__(self):
        self.name = checked_name("shapes", self, "px", 4096)


class Shapes(tfds.core.GeneratorBasedBuilder):
    """Records as `drawing.draw` gives them, images and masks stored as PNG.

    `Shapes(config=ShapesConfig(size=96, train=1000, test=200))` draws any other number and size.
    """

    name = "shapes"
    code_path = epath.Path(__file__)  # see `Digits`
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Ten classes, all annotations."}
    BUILDER_CONFIGS = [ShapesConfig()]

    def __init__(self, *, config: ShapesConfig | str | None = None, **kwargs: Any):
        # TFDS knows its own configurations by identity, so an equal one is replaced by that.
        config = next((known for known in self.BUILDER_CONFIGS if known == config), config)
        super().__init__(config=config, **kwargs)

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
                    # Of the classes of `label`. (A Sequence would read back as a list.)
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

    def _split_generators(self, dl_manager) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing to download
        config = self.builder_config
        return {
            "train": self._generate_examples(0, config.train),
            "test": self._generate_examples(FIRST_TEST_INDEX, config.test),
        }

    def _generate_examples(self, first: int, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        for index in range(first, first + count):
            record = drawing.draw(config.seed, index, config.size)
            record["image"] = _png(record["image"][..., ::-1])  # OpenCV encodes BGR
            for key in ("instances", "segmentation"):
                record[key] = _png(record[key])
            yield index, record


def _png(image: np.ndarray) -> io.BytesIO:
    return io.BytesIO(cv2.imencode(".png", image)[1].tobytes())
