"""Networks that make images of Fashion-MNIST (Xiao et al. 2017, https://arxiv.org/abs/1708.07747).

    python train.py --config configs/generation/fashion_mnist.py:vae \\
        --config.data.dir=DIR --workdir runs/fashion_vae
    jaxvision sample --workdir runs/fashion_vae --count 64 --output samples

DIR holds train-images-idx3-ubyte.gz and the other three files of
https://github.com/zalandoresearch/fashion-mnist. The variants, each for two CPU cores:

    vae          a convolutional variational autoencoder of 16 latent variables
    vqvae        a VQ-VAE of 7x7 codes, whose codebook follows the encoder
    autoencoder  the first without a posterior: 16 numbers an image, to be compared with PCA's
    dcgan        Radford et al. 2015
    stylegan2    Karras et al. 2020, in an eighth of the width, with all that is lazy
    ddpm         a small U-Net of Ho et al. 2020, told the class
    dit          a small transformer of Peebles and Xie 2022, told the class

`:smoke` trains the first for a few steps on the built-in digits, `:vqvae_smoke`, `:ddpm_smoke` and
`:dit_smoke` others. A judge gives FID and its kin, here our own classifier of such images (of
`ddpm` and `dit` the group is `diffusion`):

    --config.generation.judge.network=resnet8_cifar \\
    --config.generation.judge.weights=run:runs/fashion_mnist
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import fashion_mnist
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    return VARIANTS[check_variant(variant, tuple(filter(None, VARIANTS)))]()


def _start(task: str) -> ConfigDict:
    """Images from -1 to 1, and 128 of them a step."""
    config = default_config(task)
    fashion_mnist(config)
    config.data.mean, config.data.std = (0.5,), (0.5,)
    config.data.cache = True
    config.train.batch_size = 128
    config.train.log_every = 100
    config.eval.every = config.checkpoint.every = "5 epochs"
    config.eval.pictures = 16
    return config


def _autoencoding() -> ConfigDict:
    config = _start("autoencoding")
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.schedule.name = "cosine"
    config.schedule.warmup = "2%"
    config.train.duration = "15 epochs"
    return config


def _vae() -> ConfigDict:
    config = _autoencoding()
    config.autoencoding.likelihood = "bernoulli"
    config.model.name = "vae_conv"
    config.model.options = {"widths": (32, 64, 128, 256)}
    return config


def _autoencoder() -> ConfigDict:
    config = _autoencoding()
    config.model.name = "ae_conv"
    config.model.options = {"widths": (32, 64, 128, 256)}
    return config


def _vqvae() -> ConfigDict:
    config = _autoencoding()
    config.autoencoding.scale, config.autoencoding.learn_scale = 0.3, True
    config.model.name = "vqvae_ema"
    config.model.options = {
        **{"hidden": 64, "residual": 32},
        **{"codes": 256, "width": 32, "restart": 1.0},
    }
    return config


def _adversarial(rate: float, b1: float, b2: float) -> ConfigDict:
    config = _start("generation")
    config.optimizer.name = "adam"
    config.optimizer.learning_rate, config.optimizer.b1, config.optimizer.b2 = rate, b1, b2
    config.optimizer.ema = 0.999
    config.schedule.name = "constant"
    config.eval.pictures = 64
    return config


def _dcgan() -> ConfigDict:
    config = _adversarial(2e-4, 0.5, 0.999)
    config.model.name = "dcgan_generator"
    config.model.options = {"size": 28, "latent": 64, "width": 64}
    config.generation.discriminator_options = {"width": 32}
    config.train.batch_size = 64
    config.train.duration = "20 epochs"
    return config


def _stylegan2() -> ConfigDict:
    # As the authors have it, for the steps that lazy updates add.
    config = _adversarial(2e-3, 0.0, 0.99)
    whole = {"name": "center_crop", "size": 32}
    config.data.train_transforms = config.data.eval_transforms = (whole,)
    config.model.name = "stylegan2_generator"
    config.model.options = {"size": 32, "latent": 64, "layers": 4, "narrow": 0.125}
    config.generation.discriminator = "stylegan2_discriminator"
    config.generation.discriminator_options = {"narrow": 0.125}
    config.generation.gradient_penalty = 0.1
    config.generation.path_length = 2.0
    config.generation.style_mixing = 0.9
    config.train.batch_size = 32
    config.train.duration = "2 epochs"  # 49 images a second on two CPU cores
    config.eval.every = config.checkpoint.every = "1 epoch"
    return config


def _diffusion(network: str, rate: float, duration: str, **options: Any) -> ConfigDict:
    """Classes, guidance, averaged weights: what both networks have.

    Of each evaluation batch of 250 images 16 samples are judged: 640 of the test.
    """
    config = _start("diffusion")
    config.diffusion.size = 28
    config.diffusion.schedule = "cosine"
    config.diffusion.conditional = True
    config.diffusion.judge_samples = 16
    config.diffusion.judge_steps = 20
    config.model.name, config.model.options = network, options
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate, config.optimizer.b2 = rate, 0.99
    config.optimizer.clip_norm = 1.0
    config.optimizer.ema = 0.999
    config.schedule.name = "cosine"
    config.schedule.warmup = "5%"
    config.train.duration = duration
    config.eval.every = config.checkpoint.every = "3 epochs"
    config.eval.batch_size = 250
    config.eval.pictures = 64
    return config


def _ddpm() -> ConfigDict:
    widths = (32, 64, 128)
    return _diffusion(
        "ddpm_cifar10", 1e-3, "6 epochs", widths=widths, blocks=1, attention=(2,), groups=8
    )


def _dit() -> ConfigDict:
    return _diffusion("dit_s", 1e-3, "12 epochs", patch_size=4, width=192, depth=6, num_heads=4)


def _on_digits(config: ConfigDict, **options: Any) -> ConfigDict:
    """A few steps on the built-in digits, of a network with these options."""
    config.data.source, config.data.name, config.data.dir = "tfds", "digits", ""
    config.data.train, config.data.test = "train[:256]", "test[:64]"
    config.data.classes = ()
    config.model.options = options
    config.train.duration = "2 epochs"
    config.eval.every = config.checkpoint.every = "1 epoch"
    return config


def _diffusion_on_digits(config: ConfigDict, **options: Any) -> ConfigDict:
    config = _on_digits(config, **options)
    config.data.train, config.data.test = "train[:64]", "test[:32]"
    config.diffusion.size = 8
    config.diffusion.sampler_steps, config.diffusion.judge_steps = 4, 2
    config.train.batch_size, config.eval.batch_size = 32, 16
    config.eval.pictures = 4
    return config


VARIANTS: dict[str, Callable[[], ConfigDict]] = {
    "": _vae,
    "vae": _vae,
    "vqvae": _vqvae,
    "autoencoder": _autoencoder,
    "dcgan": _dcgan,
    "stylegan2": _stylegan2,
    "ddpm": _ddpm,
    "dit": _dit,
    "smoke": lambda: _on_digits(_vae(), size=8, widths=(8, 16), latent=4),
    "vqvae_smoke": lambda: _on_digits(
        _vqvae(), hidden=16, residual=8, codes=16, width=8, restart=1.0
    ),
    "ddpm_smoke": lambda: _diffusion_on_digits(
        _ddpm(), widths=(8, 8), blocks=1, attention=(), groups=4
    ),
    "dit_smoke": lambda: _diffusion_on_digits(_dit(), patch_size=4, width=16, depth=1, num_heads=2),
}
