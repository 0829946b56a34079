"""Self-supervised learning of small photographs, CIFAR-10.

    python train.py --config configs/pretraining/cifar10.py:igpt --config.data.dir=DIR
    jaxvision sample --workdir RUN --count 16
    jaxvision sample --workdir RUN --count 8 --inpaint photo.png --mask lower_half.png

DIR holds `train/<class>/*.png` and `test/<class>/*.png`; classes are looked at by `knn_accuracy` of
the test images alone. Each variant is a method, made so small that two CPU cores train it in forty
minutes: docs/pretraining.md says what they reach. `:smoke` is a few steps on built-in shapes.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import image_gpt, reduce_to_shapes
from jaxvision.tasks import default_config


def igpt(config: ConfigDict) -> None:
    """Chen et al. 2020, https://proceedings.mlr.press/v119/chen20s.html, of 16x16 pixels."""
    image_gpt(config, 16, 64)
    config.model.options = {"size": 16, "width": 128, "depth": 6, "num_heads": 4}
    config.train.batch_size = 32
    config.train.duration = "5 epochs"
    config.eval.every = config.checkpoint.every = "1 epoch"


METHODS: dict[str, Callable[[ConfigDict], None]] = {"igpt": igpt}


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*METHODS, "smoke"))
    config = default_config("pretraining")
    config.data.source = "folder"
    config.data.dir = "data/cifar10"
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)
    config.data.cache = True
    config.optimizer.name = "adamw"
    config.optimizer.clip_norm = 3.0
    config.schedule.name = "cosine"
    config.schedule.warmup = "10%"
    config.train.batch_size = 128
    config.train.duration = "30 epochs"
    config.eval.every = config.checkpoint.every = "5 epochs"
    METHODS.get(variant, igpt)(config)
    if variant == "smoke":
        reduce_to_shapes(config)
        config.data.train_transforms = config.data.eval_transforms = (
            {"name": "resize", "size": 8},
        )
        config.data.palette = 8
        config.model.options = {"size": 8, "width": 16, "depth": 2, "num_heads": 2}
        config.eval.pictures = 4
    return config
