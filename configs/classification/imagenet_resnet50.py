"""ResNet-50 on ImageNet by the recipe of He et al. 2015, https://arxiv.org/abs/1512.03385.

    python train.py --config configs/classification/imagenet_resnet50.py --config.data.dir=DIR

SGD with momentum 0.9, batch 256, rate 0.1 divided by 10 when the loss stops falling, weight decay
1e-4, batch norm after every convolution, no dropout. DIR holds `train/<class>/*.JPEG` and
`val/<class>/*.JPEG`. Published with this recipe: 76.1 % (torchvision IMAGENET1K_V1).

`:modern` is the longer recipe of torchvision's second weights (80.9 %; Vryniotis 2021,
https://pytorch.org/blog/how-to-train-state-of-the-art-models-using-torchvision-latest-primitives),
with RandAugment in place of TrivialAugment. `:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import imagenet, reduce_to_shapes
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("modern", "smoke"))
    config = default_config("classification")
    imagenet(config, bicubic=False)
    config.model.name = "resnet50"
    config.model.dtype = "bfloat16"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "plateau"
    config.schedule.metric = "loss"
    config.schedule.patience = 3
    config.schedule.factor = 0.1
    config.train.batch_size = 256
    config.train.duration = "90 epochs"
    if variant == "modern":
        imagenet(config, size=176, crop=0.875, bicubic=False)
        config.data.eval_transforms = (
            {"name": "resize_shorter", "size": 232},
            {"name": "center_crop", "size": 224},
        )
        config.data.augment += (
            {"name": "rand_augment", "num_ops": 1, "magnitude": 9},
            {"name": "random_erasing", "probability": 0.1},
            {"name": "mixup_or_cutmix", "mixup_alpha": 0.2, "cutmix_alpha": 1.0},
        )
        config.classification.label_smoothing = 0.1
        config.optimizer.learning_rate = 0.5
        config.optimizer.weight_decay = 2e-5
        config.optimizer.ema = 0.9998
        config.schedule.name = "cosine"
        config.schedule.warmup = "5 epochs"
        config.train.batch_size = 1024
        config.train.duration = "600 epochs"
    if variant == "smoke":
        reduce_to_shapes(config)
        config.model.options = {"depths": (1, 1, 1, 1)}
    return config
