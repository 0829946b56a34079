"""A DCGAN that draws handwritten digits of 16x16 pixels: Radford et al. 2015.

    python train.py --config configs/generation/digits_dcgan.py --workdir runs/digits_dcgan
    jaxvision sample --workdir runs/digits_dcgan --count 64 --seed 0 --output samples

The paper's recipe (https://arxiv.org/abs/1511.06434), Adam with b1 = 0.5, at rates for small
networks; the discriminator's is the lower one, since 1,437 images are soon known by heart. Samples
are of averaged weights. `:smoke` trains a few steps.

What the Fréchet distance of generated pixels is to be compared with: that after one step
(`--config.train.duration=1`), and that of as many training images:

    from jaxvision.commands import features
    from jaxvision.metrics import frechet_distance
    from jaxvision.ops.resize import resize

    config = features.configured("configs/generation/digits_dcgan.py", None, {})
    both = [features.read_split(config, split).images[:360] for split in ("train", "test")]
    pixels = [resize(x / 127.5 - 1, (8, 8)).reshape(360, -1) for x in both]
    frechet_distance(*pixels)  # 0.417
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("generation")
    config.data.name = "digits"
    config.data.channels = 1
    config.data.cache = True
    enlarged = {"name": "resize", "size": 16, "interpolation": "bicubic"}
    config.data.train_transforms = config.data.eval_transforms = (enlarged,)
    config.model.name = "dcgan_generator"
    config.model.options = {"size": 16, "latent": 32, "width": 48}
    config.generation.discriminator_options = {"width": 32}
    config.optimizer.name = "adam"
    config.optimizer.b1 = 0.5
    config.optimizer.learning_rate = 4e-4
    config.optimizer.ema = 0.995
    config.optimizer.groups = {"discriminator": {"optimizer": {"learning_rate": 3e-4}}}
    config.schedule.name = "constant"
    config.train.batch_size = 64
    config.train.duration = "100 epochs"
    config.train.log_every = 110
    config.eval.every = "20 epochs"
    config.eval.pictures = 64
    config.checkpoint.every = "20 epochs"
    if variant == "smoke":
        config.data.train_transforms = config.data.eval_transforms = ()
        config.model.options = {"size": 8, "latent": 8, "width": 8}
        config.generation.discriminator_options = {"width": 8}
        config.train.duration = 4
        config.eval.every = 2
        config.eval.pictures = 4
    return config
