"""Self-supervised learning of small photographs, CIFAR-10, by small vision transformers.

    python train.py --config configs/pretraining/cifar10.py:dino --config.data.dir=DIR
    jaxvision probe runs/cifar10_dino --config configs/classification/cifar10.py \\
        --config.data.dir=DIR --baselines

DIR holds `train/<class>/*.png` and `test/<class>/*.png`; classes are looked at by `knn_accuracy` of
the test images alone. Each variant is a method, of a network and a length meant for forty minutes
on two CPU cores. `:smoke` is `dino` on built-in shapes.
"""

from collections.abc import Callable
from functools import partial

from ml_collections import ConfigDict

from jaxvision import presets
from jaxvision.config import check_variant
from jaxvision.tasks import default_config

SIZE = 32


def dino(config: ConfigDict) -> None:
    presets.small_dino(config, SIZE)
    config.pretraining.prototypes = 2048
    config.optimizer.weight_decay = 0.04


def mocov3(config: ConfigDict) -> None:
    presets.small_mocov3(config, SIZE)
    config.optimizer.weight_decay = 0.1


def mae(config: ConfigDict) -> None:
    presets.small_mae(config, SIZE)
    config.train.duration = "80 epochs"


def beit(config: ConfigDict) -> None:
    """The tokens are those of configs/pretraining/dvae.py:cifar10."""
    presets.small_beit(config, SIZE, "run:runs/cifar10_dvae")


def igpt(config: ConfigDict) -> None:
    presets.small_igpt(config)
    config.train.duration = "5 epochs"
    config.eval.every = config.checkpoint.every = "1 epoch"


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
    METHODS.get(variant, dino)(config)
    if variant == "smoke":
        views = config.data.train_transforms
        presets.reduce_to_shapes(config)
        config.data.train_transforms = views
        config.model.options = {**presets.small_vit(SIZE), "width": 24, "depth": 1, "num_heads": 2}
        config.pretraining.prototypes, config.pretraining.hidden = 64, 32
    return config
