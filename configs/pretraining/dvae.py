"""A discrete VAE, whose tokens BEiT predicts: Ramesh et al. 2021, arXiv:2102.12092.

    python train.py --config configs/pretraining/dvae.py:cifar10 --config.data.dir=DIR --workdir RUN
    python train.py --config configs/pretraining/dvae.py:shapes --workdir RUN

Images of 32 pixels become 8x8 tokens of 512. Each is the likeliest entry of a codebook; in training
it is a draw, relaxed by a temperature that falls from 1 to 1/16, and what the tokens say (`kl`)
costs more and more. DIR holds `train/<class>/*.png` and `test/<class>/*.png`. `:smoke` trains a few
steps on the built-in digits.

    jaxvision predict --workdir RUN --output out photo.png

draws what comes back of a photograph's tokens. A run's tokenizer is `run:RUN`.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import SMALL_DVAE
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("cifar10", "shapes", "smoke"))
    config = default_config("autoencoding")
    config.data.cache = True
    config.data.mean, config.data.std = (0.0,), (1.0,)
    config.data.augment = ({"name": "flip_horizontal"},)
    config.autoencoding.likelihood = "laplace"
    config.autoencoding.learn_scale = True
    config.autoencoding.beta = 1.0
    config.autoencoding.beta_warmup = 0.2
    config.autoencoding.annealing = 0.7
    config.model.name = "dvae"
    config.model.options = SMALL_DVAE
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup = "5%"
    config.train.batch_size = 64
    if variant == "shapes":
        config.data.name = "shapes"
        config.data.options = {"size": 32, "train": 8000, "test": 500}
        config.train.duration = "40 epochs"
    else:
        config.data.source = "folder"
        config.data.dir = "data/cifar10"
        config.train.duration = "25 epochs"
    config.eval.every = config.checkpoint.every = "5 epochs"
    if variant == "smoke":
        config.data.source, config.data.name, config.data.dir = "tfds", "digits", ""
        config.data.train, config.data.test = "train[:64]", "test[:32]"
        config.data.channels, config.data.augment = 1, ()
        config.model.options = {"groups": 2, "blocks": 1, "hidden": 8, "codes": 16, "width": 8}
        config.train.batch_size = 8
        config.train.duration = config.eval.every = 4
        config.eval.pictures = 8
    return config
