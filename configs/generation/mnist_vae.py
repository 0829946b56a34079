"""The variational autoencoder of pytorch/examples on MNIST's idx files: Kingma and Welling 2013.

    python train.py --config configs/generation/mnist_vae.py --config.data.dir=DIR

The weights of github.com/csinva/gan-vae-pretrained-pytorch (mnist_vae/weights/vae_epoch_25.pth),
25.755 nats of divergence and 69.165 of pixels an image on the 10,000 test images, are evaluated by

    jaxvision evaluate --config configs/generation/mnist_vae.py --config.data.dir=DIR \\
        --weights vae_epoch_25.pth

`:smoke` trains a few steps on the built-in digits.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("autoencoding")
    config.data.source = "idx"
    config.data.dir = "data/mnist"
    config.data.classes = tuple("0123456789")
    config.data.channels = 1
    config.data.mean, config.data.std = (0.0,), (1.0,)
    config.autoencoding.likelihood = "bernoulli"
    config.model.name = "vae_mlp"
    config.optimizer.name = "adam"
    config.schedule.name = "constant"
    config.train.batch_size = 128
    config.train.duration = "25 epochs"
    config.eval.every = config.checkpoint.every = "5 epochs"
    if variant == "smoke":
        config.data.source, config.data.name, config.data.dir = "tfds", "digits", ""
        config.data.train, config.data.test = "train[:256]", "test[:64]"
        config.model.options = {"size": 8, "hidden": 32, "latent": 4}
        config.train.duration = "2 epochs"
        config.eval.every = config.checkpoint.every = "1 epoch"
    return config
