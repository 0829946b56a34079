"""Synthetic scans with a known answer: an organ with lesions among bones, in noise."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxvision.data.builders.drawn import DrawnBuilder, DrawnConfig

CLASSES = ("background", "organ", "lesion")

_DESCRIPTION = """\
Volumes of one channel drawn by jaxvision from a seed: an ellipsoid (the organ) in any direction,
with balls in it (lesions), among brighter rods (bones, which are background), under a smooth
change of brightness and noise. The segmentation is exact.
"""


@dataclasses.dataclass(kw_only=True)
class VolumesConfig(DrawnConfig):
    """Which volumes to draw; size is their side in voxels."""

    KIND, UNIT, LARGEST = "volumes", "vx", 512

    size: int = 32
    train: int = 128
    test: int = 32


class Volumes(DrawnBuilder):
    """Records as `draw` gives them."""

    name = "volumes"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Organ and lesions."}
    BUILDER_CONFIGS = [VolumesConfig()]

    def _info(self) -> tfds.core.DatasetInfo:
        side = self.builder_config.size
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            license="Apache-2.0",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(side, side, side, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(names=CLASSES),  # for its names alone
                    "segmentation": tfds.features.Tensor(shape=(side, side, side), dtype=np.uint8),
                }
            ),
            disable_shuffling=True,
        )

    def record(self, seed: int, index: int, size: int) -> dict[str, Any]:
        return draw(seed, index, size) | {"label": 0}


def draw(seed: int, index: int, size: int) -> dict[str, np.ndarray]:
    """`image` uint8 [size, size, size, 1] and `segmentation` uint8 [size, size, size]."""
    rng = np.random.default_rng((seed, index))
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij"), axis=-1)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    center, radii = rng.uniform(-0.25, 0.25, 3), rng.uniform(0.45, 0.7, 3)
    inside = np.sum((((grid - center) @ turn) / radii) ** 2, -1)
    labels = (inside < 1).astype(np.uint8)
    for _ in range(rng.integers(1, 4)):
        place = center + (rng.uniform(-0.55, 0.55, 3) * radii) @ turn.T
        ball = np.sum((grid - place) ** 2, -1) < rng.uniform(0.2, 0.3) ** 2
        labels[ball & (inside < 1)] = 2
    brightness = np.array([60.0, 120.0, 170.0])[labels]
    for _ in range(rng.integers(2, 5)):
        point, axis = rng.uniform(-0.9, 0.9, 3), rng.normal(size=3)
        away = grid - point
        along = away @ (axis / np.linalg.norm(axis))
        rod = np.sum(away**2, -1) - along**2 < rng.uniform(0.05, 0.1) ** 2
        brightness[rod & (labels == 0)] = 210
    brightness *= 1 + 0.15 * (grid @ rng.uniform(-1, 1, 3))
    brightness += rng.normal(0, 12, brightness.shape)
    image = np.clip(np.round(brightness), 0, 255).astype(np.uint8)[..., None]
    return {"image": image, "segmentation": labels}
