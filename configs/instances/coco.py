"""Mask R-CNN on COCO by torchvision's recipe.

    python train.py --config configs/instances/coco.py:maskrcnn --config.data.dir=COCO

COCO holds `train2017`, `val2017` and `annotations/instances_{train,val}2017.json`. The recipe of
configs/detection/coco.py; torchvision publishes box AP 37.9 and mask AP 34.6.
`:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import TINY_FASTER_RCNN, TINY_MASKS, coco_recipe, detect_shapes
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("maskrcnn", "smoke"))
    config = default_config("instances")
    coco_recipe(config)
    config.model.name = "maskrcnn_resnet50_fpn"
    config.optimizer.learning_rate = 0.02
    if variant == "smoke":
        detect_shapes(config)
        config.schedule.milestones = ("50%",)
        config.model.options = {**TINY_FASTER_RCNN, **TINY_MASKS}
    return config
