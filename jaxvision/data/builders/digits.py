"""UCI handwritten digits: 1,797 real images of 8x8 pixels, stored inside the package."""

import io
from collections.abc import Iterator
from importlib import resources
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from jaxtyping import UInt8

_DESCRIPTION = """\
1,797 handwritten digits of 13 people, 8x8 pixels: the test part of "Optical Recognition of
Handwritten Digits" of the UCI Machine Learning Repository, as scikit-learn redistributes it.
A pixel counts the inked dots of a 4x4 block, 0 to 16; here it is scaled to 0 to 255.

Licence: Creative Commons Attribution 4.0 International (CC BY 4.0).
Source: E. Alpaydin and C. Kaynak (1998), https://doi.org/10.24432/C50P49.
Change made: pixel values scaled by 255/16 and rounded; split into 1,437 for training and 360 for
testing. (The writers of the images are not recorded, so both parts have the same writers.)
"""

_CITATION = """\
@misc{alpaydin1998optical,
  author = {Alpaydin, Ethem and Kaynak, Cenk},
  title  = {Optical Recognition of Handwritten Digits},
  year   = {1998},
  note   = {UCI Machine Learning Repository},
  doi    = {10.24432/C50P49},
}
"""


def load() -> tuple[UInt8[np.ndarray, "1797 8 8"], UInt8[np.ndarray, "1797"]]:
    """The images as published, values 0 to 16, and their labels 0 to 9."""
    path = resources.files("jaxvision.data") / "assets" / "digits.npz"
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        return arrays["image"], arrays["label"]


def split_indices(label: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of the fixed split, {"train": [1437], "test": [360]}, disjoint and stratified.

    The records are sorted by (class, random number) and every fifth one goes to the test part, so
    each class gives it a fifth of its records to within one. The random numbers are the raw output
    of PCG64 seeded with 0, which NumPy guarantees never to change.
    """
    number = np.random.PCG64(0).random_raw(len(label))
    by_class = np.lexsort((number, label))
    is_test = np.zeros(len(label), bool)
    is_test[by_class[::5]] = True
    shuffled = np.argsort(number)
    return {"train": shuffled[~is_test[shuffled]], "test": shuffled[is_test[shuffled]]}


class Digits(tfds.core.GeneratorBasedBuilder):
    """Classification: `image` [8, 8, 1] uint8 (0 to 255) and `label` (0 to 9)."""

    name = "digits"
    # Where the class lies. TFDS 4.9.10 works it out with importlib_resources, which it requires
    # only of Python 3.8 (https://github.com/tensorflow/datasets, setup.py).
    code_path = epath.Path(__file__)
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "1,437 for training, 360 for testing."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            citation=_CITATION,
            homepage="https://archive.ics.uci.edu/dataset/80",
            license="CC BY 4.0",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # the permutation above is the order
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing to download
        image, label = load()
        image = np.round(image * (255 / 16)).astype(np.uint8)
        return {
            split: self._generate_examples(image[indices], label[indices])
            for split, indices in split_indices(label).items()
        }

    def _generate_examples(self, images, labels) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            png = cv2.imencode(".png", image)[1].tobytes()
            yield index, {"image": io.BytesIO(png), "label": int(label)}
