"""Clothes of 28x28 pixels, drawn by several kinds of networks, from Fashion-MNIST's idx files.

    python train.py --config configs/generation/fashion_mnist.py:ddpm \\
        --config.data.dir=DIR --workdir runs/ddpm
    jaxvision sample --workdir runs/ddpm --count 64 --guidance 2 --output samples

DIR holds the four files of https://github.com/zalandoresearch/fashion-mnist. Variants:

- `ddpm`, the default: a small U-Net of Ho et al. 2020, https://arxiv.org/abs/2006.11239;
- `dit`: a small diffusion transformer of Peebles and Xie 2022, https://arxiv.org/abs/2212.09748.

Each trains in 40 minutes or less on two CPU cores. `:smoke` and `:dit_smoke` train a few steps on
the built-in digits.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import fashion_mnist
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("ddpm", "dit", "smoke", "dit_smoke"))
    table = {"ddpm": _ddpm, "dit": _dit}
    config = table[variant.removesuffix("smoke").removesuffix("_") or "ddpm"]()
    if variant.endswith("smoke"):
        _reduce_to_digits(config)
    return config


def _diffusion() -> ConfigDict:
    """Classes, guidance, averaged weights and a cosine's noise: what both networks have."""
    config = default_config("diffusion")
    fashion_mnist(config)
    config.data.augment = ({"name": "flip_horizontal"},)
    config.diffusion.size = 28
    config.diffusion.schedule = "cosine"
    config.diffusion.conditional = True
    config.diffusion.judge_samples = 16
    config.diffusion.judge_steps = 20
    config.optimizer.name = "adamw"
    config.optimizer.b2 = 0.99
    config.optimizer.clip_norm = 1.0
    config.optimizer.ema = 0.999
    config.schedule.name = "cosine"
    config.schedule.warmup = 500
    config.train.batch_size = 128
    config.train.log_every = 100
    config.eval.batch_size = 250
    config.eval.pictures = 64
    return config


def _ddpm() -> ConfigDict:
    config = _diffusion()
    config.model.name = "ddpm_cifar10"
    config.model.options = {
        "widths": (32, 64, 128),
        "blocks": 1,
        "attention": (2,),
        "groups": 8,
        "dropout": 0.1,
    }
    config.optimizer.learning_rate = 1e-3
    config.train.duration = "12 epochs"
    config.eval.every = config.checkpoint.every = "3 epochs"
    return config


def _dit() -> ConfigDict:
    config = _diffusion()
    config.model.name = "dit_s"
    config.model.options = {"patch_size": 4, "width": 192, "depth": 6, "num_heads": 4}
    config.optimizer.learning_rate = 1e-3
    config.train.duration = "12 epochs"
    config.eval.every = config.checkpoint.every = "3 epochs"
    return config


def _reduce_to_digits(config: ConfigDict) -> None:
    """A few steps on the built-in digits of 8x8 pixels."""
    config.data.source, config.data.name, config.data.dir = "tfds", "digits", ""
    config.data.classes = ()
    config.data.train, config.data.test = "train[:64]", "test[:32]"
    config.diffusion.size = 8
    config.diffusion.sampler_steps = 4
    config.diffusion.judge_steps = 2
    small = {"widths": (8, 8), "blocks": 1, "attention": (), "groups": 4}
    if config.model.name == "dit_s":
        small = {"patch_size": 4, "width": 16, "depth": 1, "num_heads": 2}
    config.model.options = small
    config.schedule.warmup = 0
    config.train.batch_size = 32
    config.train.duration = 4
    config.eval.batch_size = 16
    config.eval.every = config.checkpoint.every = 2
    config.eval.pictures = 4
