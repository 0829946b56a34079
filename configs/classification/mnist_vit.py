"""A small Vision Transformer on MNIST's idx files.

    python train.py --config configs/classification/mnist_vit.py --config.data.dir=DIR

The published weights of researchase/vit-mnist-explorations are evaluated with

    jaxvision evaluate --config configs/classification/mnist_vit.py --config.data.dir=DIR \\
        --weights vit_mnist_gpu.pt

The variant `:smoke` runs a shallow one on the built-in digits.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("classification")
    config.data.source = "idx"
    config.data.dir = "data/mnist"
    config.data.classes = tuple("0123456789")
    config.data.channels = 1
    config.data.mean = (0.1307,)
    config.data.std = (0.3081,)
    config.data.augment = ({"name": "random_affine", "degrees": 10.0, "translate": (0.1, 0.1)},)
    config.model.name = "vit_mnist"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0
    config.schedule.warmup = "5%"
    config.train.batch_size = 128
    config.train.duration = "20 epochs"
    if variant == "smoke":
        config.data.source, config.data.name, config.data.dir = "tfds", "digits", ""
        config.data.train, config.data.test = "train[:256]", "test[:64]"
        config.data.train_transforms = ({"name": "resize", "size": 28},)
        config.data.eval_transforms = ({"name": "resize", "size": 28},)
        config.model.options = {"depth": 1}
        config.train.duration = "1 epoch"
    return config
