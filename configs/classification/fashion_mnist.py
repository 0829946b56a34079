"""Fashion-MNIST (Xiao et al. 2017, https://arxiv.org/abs/1708.07747) from its idx files.

    python train.py --config configs/classification/fashion_mnist.py \\
        --config.data.dir=DIR --workdir runs/fashion_mnist

DIR holds train-images-idx3-ubyte.gz and the other three files of
https://github.com/zalandoresearch/fashion-mnist. The variant `:resnet20` is the longer training of
a deeper network; `:smoke` runs on the built-in digits.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import fashion_mnist
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("resnet20", "smoke"))
    config = default_config("classification")
    fashion_mnist(config)
    config.data.augment = (
        {"name": "flip_horizontal"},
        {"name": "random_crop", "padding": 2},
    )
    config.model.name = "resnet8_cifar"
    config.optimizer.name = "sgd"
    config.optimizer.nesterov = True
    config.optimizer.learning_rate = 0.2
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "one_cycle"
    config.train.batch_size = 128
    config.train.duration = "6 epochs"
    config.train.log_every = 100
    if variant == "resnet20":
        config.model.name = "resnet20_cifar"
        config.train.duration = "8 epochs"
        config.data.augment += ({"name": "random_erasing", "probability": 0.3},)
    if variant == "smoke":
        config.data.source, config.data.name, config.data.dir = "tfds", "digits", ""
        config.data.train, config.data.test = "train[:512]", "test[:64]"
        config.train.duration = "1 epoch"
    return config
