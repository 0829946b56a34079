"""Self-supervised learning on the built-in `shapes`.

    python train.py --config configs/pretraining/shapes.py:igpt --workdir runs/shapes_igpt
    jaxvision sample --workdir runs/shapes_igpt --count 16

4,000 scenes of 64 pixels, 500 for the test; the class is that of the largest shape, which training
never sees. Each variant is a method. `:smoke` is a few steps.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import image_gpt
from jaxvision.tasks import default_config


def igpt(config: ConfigDict) -> None:
    """Chen et al. 2020, https://proceedings.mlr.press/v119/chen20s.html, of 16x16 pixels."""
    image_gpt(config, 16, 64)
    config.model.options = {"size": 16, "width": 128, "depth": 6, "num_heads": 4}
    config.train.batch_size = 32
    config.train.duration = "15 epochs"
    config.eval.every = config.checkpoint.every = "5 epochs"


METHODS: dict[str, Callable[[ConfigDict], None]] = {"igpt": igpt}


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*METHODS, "smoke"))
    config = default_config("pretraining")
    config.data.name = "shapes"
    config.data.options = {"size": 64, "train": 4000, "test": 500}
    config.data.cache = True
    config.data.mean, config.data.std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.04
    config.optimizer.clip_norm = 3.0
    config.schedule.name = "cosine"
    config.schedule.warmup = "10%"
    config.train.batch_size = 128
    config.train.duration = "60 epochs"
    config.eval.every = config.checkpoint.every = "10 epochs"
    METHODS.get(variant, igpt)(config)
    if variant == "smoke":
        config.data.options = {"size": 64, "train": 64, "test": 32}
        config.data.train_transforms = config.data.eval_transforms = (
            {"name": "resize", "size": 8},
        )
        config.data.palette = 8
        config.model.options = {"size": 8, "width": 16, "depth": 2, "num_heads": 2}
        config.train.batch_size = 16
        config.train.duration = config.eval.every = 2
        config.schedule.warmup = 0
        config.eval.pictures = 4
    return config
