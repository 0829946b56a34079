"""DDPM on CIFAR-10: Ho et al., Denoising Diffusion Probabilistic Models, 2020.

    jaxvision data prepare cifar10
    python train.py --config configs/generation/cifar10.py --workdir runs/ddpm
    jaxvision sample --config configs/generation/cifar10.py --weights google/ddpm-cifar10-32 \\
        --sampler ddim --steps 50 --count 64 --output samples

The authors' recipe (https://arxiv.org/abs/2006.11239, appendix B): 800,000 steps of 128 images,
averaged weights, mirror images; FID 3.17 of 50,000 samples by 1,000 steps of DDPM. The last command
takes their network as diffusers publishes it. `:smoke` trains a small one for a few steps.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("diffusion")
    config.data.name = "cifar10"
    config.data.cache = True
    config.data.mean = config.data.std = (0.5,)
    config.data.augment = ({"name": "flip_horizontal"},)
    config.diffusion.sampler = "ddpm"
    config.diffusion.sampler_steps = 1000
    config.diffusion.large_variance = True
    config.model.name = "ddpm_cifar10"
    config.model.options = {"dropout": 0.1}
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 2e-4
    config.optimizer.clip_norm = 1.0
    config.optimizer.ema = 0.9999
    config.schedule.name = "constant"
    config.schedule.warmup = 5000
    config.train.batch_size = 128
    config.train.duration = 800_000
    config.eval.every = config.checkpoint.every = 10_000
    config.eval.pictures = 0  # a thousand steps each
    if variant == "smoke":
        config.data.name = "digits"
        config.data.train, config.data.test = "train[:64]", "test[:32]"
        config.data.channels = 1
        config.data.augment = ()
        config.diffusion.size = 8
        config.diffusion.sampler_steps = 4
        config.model.options = {"widths": (8, 8), "blocks": 1, "attention": (), "groups": 4}
        config.schedule.warmup = 0
        config.train.batch_size = 32
        config.train.duration = 4
        config.eval.batch_size = 16
        config.eval.every = config.checkpoint.every = 4
        config.eval.pictures = 4
    return config
