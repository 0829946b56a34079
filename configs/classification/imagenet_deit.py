"""DeiT-S on ImageNet: Touvron et al. 2020, https://arxiv.org/abs/2012.12877 (79.9 %).

    python train.py --config configs/classification/imagenet_deit.py --config.data.dir=DIR

AdamW, batch 1024, 300 epochs, RandAugment, mixup or CutMix, random erasing, stochastic depth 0.1.
`:distilled` (81.2 % with the authors' teacher) has a distillation token that learns the classes a
teacher sees; the teacher here is torchvision's ResNet-152, any other of `jaxvision info weights` is
--config.classification.distillation.model=NAME.
DIR holds `train/<class>/*.JPEG` and `val/<class>/*.JPEG`.
`:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import DEIT_AUGMENT, imagenet, reduce_to_shapes
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("distilled", "smoke"))
    config = default_config("classification")
    imagenet(config)
    config.data.augment += DEIT_AUGMENT
    config.model.name = "deit_small_patch16_224"
    config.model.options = {"drop_path": 0.1}
    config.model.dtype = "bfloat16"
    config.classification.label_smoothing = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.schedule.name = "cosine"
    config.schedule.warmup = "5 epochs"
    config.schedule.final = 0.01
    config.train.batch_size = 1024
    config.train.duration = "300 epochs"
    if variant == "distilled":
        config.model.name = "deit_small_distilled_patch16_224"
        config.classification.distillation.model = "resnet152"
        config.classification.distillation.weights = "IMAGENET1K_V2"
    if variant == "smoke":
        reduce_to_shapes(config)
        config.model.name = "deit_small_distilled_patch16_224"
        small = {"depth": 1, "width": 48, "num_heads": 2}
        config.model.options = {**config.model.options, **small}
    return config
