"""COCO by the published recipes: FCOS, RetinaNet and Faster R-CNN on ResNet-50 with a pyramid.

    python train.py --config configs/detection/coco.py:retinanet --config.data.dir=COCO

COCO holds `train2017`, `val2017` and `annotations/instances_{train,val}2017.json`. torchvision's
recipe: SGD, 26 epochs of batches of 16, the rate divided by ten after epochs 16 and 22, the shorter
side 800 and the longer at most 1333, mirror images, an encoder from ImageNet whose norms keep their
statistics. torchvision publishes AP 39.2 (FCOS), 36.4 (RetinaNet), 37.0 (Faster R-CNN). Rates are
for 16 images a step.
`:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import coco_recipe, detect_shapes
from jaxvision.tasks import default_config

# Network and learning rate.
NETWORKS = {
    "fcos": ("fcos_resnet50_fpn", 0.01),
    "retinanet": ("retinanet_resnet50_fpn", 0.01),
    "fasterrcnn": ("fasterrcnn_resnet50_fpn", 0.02),
}


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*NETWORKS, "smoke"))
    config = default_config("detection")
    coco_recipe(config)
    name, rate = NETWORKS.get(variant, NETWORKS["retinanet"])
    config.model.name = name
    config.optimizer.learning_rate = rate
    if variant == "smoke":
        detect_shapes(config)
        config.schedule.milestones = ("50%",)
        config.model.options = {
            "encoder": "resnet18",
            "encoder_options": {"depths": (1, 1, 1, 1)},
            "width": 32,
            "depth": 1,
        }
    return config
