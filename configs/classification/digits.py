"""The embedded default: 1,797 real handwritten digits of 8x8 pixels, a small residual network.

python train.py --config configs/classification/digits.py
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("classification")
    config.data.name = "digits"
    config.data.channels = 1
    config.data.cache = True
    config.data.mean = (0.305,)
    config.data.std = (0.376,)
    config.data.augment = (
        {"name": "random_affine", "degrees": 10.0, "translate": (0.1, 0.1), "scale": (0.9, 1.1)},
    )
    config.model.name = "resnet8_cifar"
    config.optimizer.learning_rate = 4e-3
    config.optimizer.weight_decay = 0.02
    config.schedule.name = "one_cycle"
    config.train.batch_size = 64
    config.train.duration = "60 epochs"
    config.train.log_every = 110
    config.eval.every = "10 epochs"
    config.checkpoint.every = "10 epochs"
    if variant == "smoke":
        config.train.duration = "2 epochs"
        config.eval.every = "1 epoch"
    return config
