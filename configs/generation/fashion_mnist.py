"""Networks that make images of Fashion-MNIST (Xiao et al. 2017, https://arxiv.org/abs/1708.07747).

    python train.py --config configs/generation/fashion_mnist.py:vae \\
        --config.data.dir=DIR --workdir runs/fashion_vae
    jaxvision sample --workdir runs/fashion_vae --count 64 --output samples

DIR holds train-images-idx3-ubyte.gz and the other three files of
https://github.com/zalandoresearch/fashion-mnist. The variants, each for two CPU cores:

    vae          a convolutional variational autoencoder of 16 latent variables
    vqvae        a VQ-VAE of 7x7 codes, whose codebook follows the encoder
    autoencoder  the first without a posterior: 16 numbers an image, to be compared with PCA's

`:smoke` trains the first for a few steps on the built-in digits, `:vqvae_smoke` the second.
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


def _on_digits(config: ConfigDict, **options: Any) -> ConfigDict:
    """A few steps on the built-in digits, of a network with these options."""
    config.data.source, config.data.name, config.data.dir = "tfds", "digits", ""
    config.data.train, config.data.test = "train[:256]", "test[:64]"
    config.data.classes = ()
    config.model.options = options
    config.train.duration = "2 epochs"
    config.eval.every = config.checkpoint.every = "1 epoch"
    return config


VARIANTS: dict[str, Callable[[], ConfigDict]] = {
    "": _vae,
    "vae": _vae,
    "vqvae": _vqvae,
    "autoencoder": _autoencoder,
    "smoke": lambda: _on_digits(_vae(), size=8, widths=(8, 16), latent=4),
    "vqvae_smoke": lambda: _on_digits(
        _vqvae(), hidden=16, residual=8, codes=16, width=8, restart=1.0
    ),
}
