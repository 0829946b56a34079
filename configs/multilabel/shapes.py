"""Which shapes a scene has: several labels an image, on the built-in `shapes`.

    python train.py --config configs/multilabel/shapes.py --workdir runs/shapes_labels
    jaxvision predict --workdir runs/shapes_labels photo.jpg --output predictions

A ResNet-20 with a sigmoid for each of the ten kinds. Labels of your own come from a CSV file
(`data.source="csv"`, docs/own_images.md). `:smoke` trains a few steps.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("multilabel")
    config.data.name = "shapes"
    config.data.options = {"size": 32, "train": 12000, "test": 1000}
    config.data.cache = True
    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.25, 0.25, 0.25)
    config.data.augment = ({"name": "flip_horizontal"},)
    config.model.name = "resnet20_cifar"
    config.optimizer.learning_rate = 4e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup = "5%"
    config.train.batch_size = 64
    config.train.duration = "10 epochs"
    config.train.log_every = 94
    config.eval.every = "2 epochs"
    if variant == "smoke":
        config.data.options = {"size": 32, "train": 64, "test": 32}
        config.model.name = "resnet8_cifar"
        config.train.batch_size = 32
        config.train.duration = 4
        config.eval.every = 2
    return config
