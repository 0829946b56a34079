"""Swin-T on ImageNet: Liu et al. 2021, https://arxiv.org/abs/2103.14030 (81.3 %).

    python train.py --config configs/classification/imagenet_swin.py --config.data.dir=DIR

AdamW, batch 1024, 300 epochs with 20 of warm-up, RandAugment, mixup or CutMix, random erasing,
stochastic depth 0.2. DIR holds `train/<class>/*.JPEG` and `val/<class>/*.JPEG`. `:smoke` runs on
built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import DEIT_AUGMENT, imagenet, reduce_to_shapes
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("classification")
    imagenet(config)
    config.data.augment += DEIT_AUGMENT
    config.model.name = "swin_tiny_patch4_window7_224"
    config.model.options = {"drop_path": 0.2}
    config.model.dtype = "bfloat16"
    config.classification.label_smoothing = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 5.0
    config.schedule.name = "cosine"
    config.schedule.warmup = "20 epochs"
    config.schedule.final = 0.01
    config.train.batch_size = 1024
    config.train.duration = "300 epochs"
    if variant == "smoke":
        reduce_to_shapes(config)
        small = {"width": 24, "depths": (1, 2), "num_heads": (2, 4), "window": 4}
        config.model.options = {**config.model.options, **small}
    return config
