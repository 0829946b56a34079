"""StyleGAN2 of faces (FFHQ, 1024 pixels): Karras et al. 2020, configuration F.

    python train.py --config configs/generation/ffhq.py --config.data.dir=FFHQ --workdir runs/ffhq
    jaxvision sample --config configs/generation/ffhq.py --weights stylegan2_ffhq.pth \\
        --truncation 0.7 --count 4 --output faces

FFHQ (https://github.com/NVlabs/ffhq-dataset) is a folder of images, in folders or not. Its authors'
recipe (https://arxiv.org/abs/1912.04958): 25 million images in batches of 32, FID 2.84. The second
command makes images by NVIDIA's network as converted for PyTorch by basicsr or rosinality, whose
file of averaged weights is given. `:smoke` trains a small one for a few steps on the digits.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("generation")
    config.data.source, config.data.dir = "images", "data/ffhq"
    config.data.augment = ({"name": "flip_horizontal"},)
    config.model.name = "stylegan2_generator"
    config.generation.discriminator = "stylegan2_discriminator"
    config.generation.gradient_penalty = 10.0
    config.generation.path_length = 2.0
    config.generation.style_mixing = 0.9
    # Rates and moments are those of 2e-3, 0 and 0.99, for the steps that lazy updates add.
    config.optimizer.name = "adam"
    config.optimizer.learning_rate, config.optimizer.b1 = 2e-3 * 4 / 5, 0.0
    config.optimizer.b2 = 0.99 ** (4 / 5)
    config.optimizer.groups = {
        "discriminator": {"optimizer": {"learning_rate": 2e-3 * 16 / 17, "b2": 0.99 ** (16 / 17)}}
    }
    config.optimizer.ema = 0.5 ** (32 / 10_000)  # half of it is of the last 10,000 images
    config.schedule.name = "constant"
    config.train.batch_size = 32
    config.train.duration = 25_000_000 // 32
    config.eval.every = config.checkpoint.every = 10_000
    config.eval.pictures = 16
    if variant == "smoke":
        config.data.source, config.data.name, config.data.dir = "tfds", "digits", ""
        config.data.train, config.data.test = "train[:64]", "test[:32]"
        config.data.channels = 1
        config.model.options = {"size": 8, "latent": 8, "layers": 2, "narrow": 1 / 64}
        config.generation.discriminator_options = {"narrow": 1 / 64}
        config.generation.gradient_penalty_every = config.generation.path_length_every = 2
        config.train.batch_size = 16
        config.train.duration = 4
        config.eval.every = config.checkpoint.every = 4
        config.eval.pictures = 4
    return config
