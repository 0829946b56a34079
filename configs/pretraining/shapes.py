"""Self-supervised learning on the built-in `shapes`, by small vision transformers.

    python train.py --config configs/pretraining/shapes.py:dino --workdir runs/shapes_dino
    jaxvision probe runs/shapes_dino --config configs/pretraining/shapes.py --baselines

4,000 scenes of 64 pixels, 500 for the test; the class is that of the largest shape, which training
never sees. Each variant is a method. `:smoke` is `dino` for a few steps.
"""

from collections.abc import Callable
from functools import partial

from ml_collections import ConfigDict

from jaxvision import presets
from jaxvision.config import check_variant
from jaxvision.tasks import default_config

SIZE = 64


def dino(config: ConfigDict) -> None:
    presets.small_dino(config, SIZE)
    config.pretraining.prototypes = 1024


def mocov3(config: ConfigDict) -> None:
    presets.small_mocov3(config, SIZE)


def mae(config: ConfigDict) -> None:
    presets.small_mae(config, SIZE)
    config.train.duration = "120 epochs"


def beit(config: ConfigDict) -> None:
    """The tokens are those of configs/pretraining/dvae.py:shapes."""
    presets.small_beit(config, SIZE, "run:runs/shapes_dvae")


def igpt(config: ConfigDict) -> None:
    presets.small_igpt(config)
    config.train.duration = "15 epochs"
    config.eval.every = config.checkpoint.every = "5 epochs"


METHODS: dict[str, Callable[[ConfigDict], None]] = {
    "dino": dino,
    "mocov3": mocov3,
    "mae": mae,
    "beit": beit,
    "igpt": igpt,
    "denoising": partial(presets.small_denoising, size=SIZE),
    "context": partial(presets.small_context, size=SIZE),
}


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
    METHODS.get(variant, dino)(config)
    if variant == "smoke":
        config.data.options = {"size": 64, "train": 64, "test": 32}
        config.model.options = {**presets.small_vit(SIZE), "width": 24, "depth": 1, "num_heads": 2}
        config.pretraining.prototypes, config.pretraining.hidden = 64, 32
        config.train.batch_size = 16
        config.train.duration = config.eval.every = 2
        config.schedule.warmup = 0
    return config
