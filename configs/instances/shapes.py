"""Mask R-CNN on the built-in `shapes`: a mask of each object.

    python train.py --config configs/instances/shapes.py:maskrcnn --workdir runs/shapes_maskrcnn
    jaxvision predict --workdir runs/shapes_maskrcnn photo.jpg --output predictions

The recipe of configs/detection/shapes.py, and its reduced Faster R-CNN with a mask head of two
convolutions of 64 channels. `:smoke` trains a smaller one for a few steps.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import (
    REDUCED_FASTER_RCNN,
    TINY_FASTER_RCNN,
    TINY_MASKS,
    detect_shapes,
    learn_shapes,
)
from jaxvision.tasks import default_config

_MASKS = {"mask_convs": (64, 64), "mask_width": 64, "mask_pool_size": 14}
NETWORKS = {"maskrcnn": ("maskrcnn_resnet50_fpn", {**REDUCED_FASTER_RCNN, **_MASKS})}


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*NETWORKS, "smoke"))
    config = default_config("instances")
    learn_shapes(config)
    config.data.augment = ({"name": "flip_horizontal"},)
    config.model.name, config.model.options = NETWORKS.get(variant, NETWORKS["maskrcnn"])
    if variant == "smoke":
        detect_shapes(config)
        config.model.options = {**TINY_FASTER_RCNN, **TINY_MASKS}
    return config
