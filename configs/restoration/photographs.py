"""Super-resolution of photographs, twice as large: Ledig et al. 2017.

    python train.py --config configs/restoration/photographs.py:srresnet \\
        --config.data.dir=PHOTOGRAPHS --workdir runs/srresnet
    jaxvision predict --workdir runs/srresnet small.png --tile 128 --output enlarged

PHOTOGRAPHS is a folder of images, in folders or not; a fifth of them is kept for the test. The
network (https://arxiv.org/abs/1609.04802, without batch norms) is reduced so that two CPU cores
train it in an hour. `:srgan` goes on from it, with maps of a trained network and a discriminator:

    python train.py --config configs/restoration/photographs.py:srgan \\
        --config.data.dir=PHOTOGRAPHS --config.model.weights=run:runs/srresnet \\
        --config.restoration.perceptual.weights=default --workdir runs/srgan

`:smoke` trains for a few steps on built-in scenes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import IMAGENET_MEAN, IMAGENET_STD
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("srresnet", "srgan", "smoke"))
    config = default_config("restoration")
    config.data.source, config.data.dir = "images", "data/photographs"
    config.data.mean, config.data.std = (0.0,), (1.0,)
    config.data.train_transforms = ({"name": "random_crop", "size": 96},)
    config.data.eval_transforms = ({"name": "center_crop", "size": 256},)
    config.data.augment = ({"name": "flip_horizontal"}, {"name": "flip_vertical"})
    config.data.cache = True
    config.model.name = "msrresnet"
    config.model.options = {"scale": 2, "width": 32, "depth": 8}
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.ema = 0.999
    config.schedule.name = "cosine"
    config.schedule.warmup = "2%"
    config.train.batch_size = 16
    config.train.duration = 12000
    config.train.log_every = 200
    config.eval.every = config.checkpoint.every = 2000
    config.eval.batch_size = 8
    config.eval.pictures = 6
    if variant == "srgan":
        _adversarial(config)
    if variant == "smoke":
        config.data.source, config.data.name, config.data.dir = "tfds", "shapes", ""
        config.data.train, config.data.test = "train[:32]", "test[:8]"
        config.data.options = {"size": 48}
        config.data.train_transforms = ({"name": "random_crop", "size": 24},)
        config.data.eval_transforms = ({"name": "center_crop", "size": 32},)
        config.model.options = {"scale": 2, "width": 8, "depth": 1}
        config.restoration.discriminator = "srgan_discriminator"
        config.restoration.discriminator_options = {"width": 4, "hidden": 8}
        config.train.batch_size = 8
        config.train.duration = 4
        config.eval.every = config.checkpoint.every = 4
        config.eval.pictures = 2
    return config


def _adversarial(config: ConfigDict) -> None:
    """The paper's losses: maps of VGG-19, and the discriminator's opinion."""
    own = config.restoration
    own.pixel_weight = 0.01
    own.discriminator = "srgan_discriminator"
    own.discriminator_options = {"width": 32, "hidden": 256}
    own.perceptual.network = "vgg19"
    own.perceptual.layer = "features_34"
    own.perceptual.mean, own.perceptual.std = IMAGENET_MEAN, IMAGENET_STD
    config.optimizer.learning_rate = 1e-4
    config.train.duration = 6000
