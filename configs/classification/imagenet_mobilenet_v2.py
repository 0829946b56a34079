"""MobileNetV2 on ImageNet: Sandler et al. 2018, https://arxiv.org/abs/1801.04381.

    python train.py --config configs/classification/imagenet_mobilenet_v2.py --config.data.dir=DIR

Torchvision's recipe (71.9 %): SGD with momentum 0.9, rate 0.045 multiplied by 0.98 every epoch,
weight decay 4e-5, batch 256. DIR holds `train/<class>/*.JPEG` and `val/<class>/*.JPEG`. `:smoke`
runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import imagenet, reduce_to_shapes
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("classification")
    imagenet(config, bicubic=False)
    config.model.name = "mobilenet_v2"
    config.model.dtype = "bfloat16"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.045
    config.optimizer.weight_decay = 4e-5
    config.schedule.name = "step"
    config.schedule.milestones = tuple(f"{epoch} epochs" for epoch in range(1, 300))
    config.schedule.factor = 0.98
    config.train.batch_size = 256
    config.train.duration = "300 epochs"
    if variant == "smoke":
        reduce_to_shapes(config)
        config.schedule.milestones = (2,)
        config.model.options = {"stages": ((1, 8, 1, 1), (6, 12, 1, 2), (6, 16, 2, 2))}
    return config
