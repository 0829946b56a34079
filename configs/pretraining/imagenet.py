"""Self-supervised learning on ImageNet by the published recipes.

    python train.py --config configs/pretraining/imagenet.py:igpt --config.data.dir=DIR

DIR holds `train/<class>/*.JPEG` and `val/<class>/*.JPEG`. Each variant is a method with the batch,
rate and length of its paper; they want many accelerators. `:smoke` is a few steps on built-in
shapes.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import image_gpt, imagenet, reduce_to_shapes
from jaxvision.tasks import default_config


def igpt(config: ConfigDict) -> None:
    """iGPT-S, Chen et al. 2020, https://proceedings.mlr.press/v119/chen20s.html."""
    image_gpt(config, 32, 512)
    config.train.batch_size = 128
    config.train.duration = 1_000_000
    config.eval.pictures = 8


METHODS: dict[str, Callable[[ConfigDict], None]] = {"igpt": igpt}


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*METHODS, "smoke"))
    config = default_config("pretraining")
    imagenet(config)
    config.data.augment = ()
    config.model.dtype = "bfloat16"
    config.optimizer.name = "adamw"
    config.schedule.name = "cosine"
    config.eval.every = config.checkpoint.every = "5 epochs"
    METHODS.get(variant, igpt)(config)
    if variant == "smoke":
        reduce_to_shapes(config)
        config.data.train_transforms = config.data.eval_transforms = (
            {"name": "resize", "size": 8},
        )
        config.data.palette = 8
        config.model.options = {"size": 8, "width": 16, "depth": 2, "num_heads": 2}
        config.model.dtype = "float32"
        config.eval.pictures = 4
    return config
