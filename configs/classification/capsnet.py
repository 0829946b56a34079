"""CapsNet on Fashion-MNIST (Xiao et al. 2017, https://arxiv.org/abs/1708.07747).

    python train.py --config configs/classification/capsnet.py \\
        --config.data.dir=DIR --workdir runs/capsnet

As in Sabour et al. 2017, https://arxiv.org/abs/1710.09829: Adam, shifts by up to two pixels, margin
loss and 0.0005 times the squared errors of the reconstruction. The learning rate decays as a
cosine, in the paper exponentially. DIR holds the four idx files; with those of MNIST, and its
classes, this is the paper's experiment. `:smoke` is a narrower network on the built-in digits.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import fashion_mnist
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("classification")
    fashion_mnist(config)
    # The decoder ends in a sigmoid: images stay between 0 and 1.
    config.data.mean = (0.0,)
    config.data.std = (1.0,)
    config.data.augment = ({"name": "random_crop", "padding": 2},)
    config.model.name = "capsnet_decoder"
    config.classification.loss = "margin"
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.train.batch_size = 128
    config.train.duration = "20 epochs"
    config.train.log_every = 100
    if variant == "smoke":
        config.data.source, config.data.name, config.data.dir = "tfds", "digits", ""
        config.data.classes = ()
        config.data.train, config.data.test = "train[:256]", "test[:64]"
        config.data.train_transforms = ({"name": "resize", "size": 28},)
        config.data.eval_transforms = ({"name": "resize", "size": 28},)
        config.model.options = {"width": 16, "types": 4}
        config.train.duration = "1 epoch"
    return config
