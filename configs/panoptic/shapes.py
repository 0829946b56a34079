"""Panoptic FPN on the built-in `shapes`: each object, and the background as stuff.

    python train.py --config configs/panoptic/shapes.py:panoptic_fpn --workdir runs/shapes_panoptic
    jaxvision predict --workdir runs/shapes_panoptic photo.jpg --output predictions

The recipe of configs/detection/shapes.py, and the reduced Mask R-CNN of configs/instances/shapes.py
with a branch of 64 channels for stuff. `:smoke` trains a smaller one for a few steps.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import (
    REDUCED_FASTER_RCNN,
    SHAPES,
    TINY_FASTER_RCNN,
    TINY_MASKS,
    detect_shapes,
    learn_shapes,
)
from jaxvision.tasks import default_config

# Classes of objects count from 0 on; masks have the background as 0, and objects from 1 on.
CLASSES = (*SHAPES, "background")
VALUES = (*range(1, 11), 0)
_REDUCED = {
    "mask_convs": (64, 64),
    "mask_width": 64,
    "mask_pool_size": 14,
    "semantic_width": 64,
    "semantic_groups": 8,
}
_TINY = {**TINY_MASKS, "semantic_width": 16, "semantic_groups": 4}


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("panoptic_fpn", "smoke"))
    config = default_config("panoptic")
    learn_shapes(config)
    config.data.augment = ({"name": "flip_horizontal"},)
    config.panoptic.stuff_area = 64
    config.model.name = "panoptic_fpn_resnet50"
    config.model.options = {**REDUCED_FASTER_RCNN, **_REDUCED}
    if variant == "smoke":
        detect_shapes(config)
        config.model.options = {**TINY_FASTER_RCNN, **_TINY}
    config.data.classes, config.data.mask_values = CLASSES, VALUES
    return config
