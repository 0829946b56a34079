"""ViT-S/16 on ImageNet in 90 epochs: Beyer et al., Better plain ViT baselines, 2022.

    python train.py --config configs/classification/imagenet_vit.py --config.data.dir=DIR

https://arxiv.org/abs/2205.01580: 76.5 %. Fixed sine-cosine positions, the mean of the patches in
place of a class token, batch 1024, a little RandAugment and mixup, gradients clipped at norm 1.
DIR holds `train/<class>/*.JPEG` and `val/<class>/*.JPEG`. `:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import imagenet, reduce_to_shapes
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("classification")
    imagenet(config)
    config.data.mean = config.data.std = (0.5, 0.5, 0.5)
    config.data.augment += (
        {"name": "rand_augment", "num_ops": 2, "magnitude": 10},
        {"name": "mixup", "alpha": 0.2},
    )
    config.model.name = "vit_small_patch16_224"
    config.model.options = {"pool": "mean", "positions": "sincos"}
    config.model.dtype = "bfloat16"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.1  # 1e-4 for each step in the paper's convention
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup = 10_000
    config.train.batch_size = 1024
    config.train.duration = "90 epochs"
    if variant == "smoke":
        reduce_to_shapes(config)
        config.model.options = {**config.model.options, "depth": 1, "width": 48, "num_heads": 2}
    return config
