"""Class and box of the largest shape of a scene: the lectures' classification + localisation.

    python train.py --config configs/localization/shapes.py --workdir runs/shapes_localizer
    jaxvision predict --workdir runs/shapes_localizer photo.jpg --output predictions

A ResNet-20 with a class head on the mean of its last map and a box head on the map itself (Sermanet
et al. 2013, https://arxiv.org/abs/1312.6229). `:smoke` trains a few steps.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("localization")
    config.data.name = "shapes"
    config.data.options = {"size": 32, "train": 12000, "test": 1000}
    config.data.cache = True
    config.data.max_instances = 8
    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.25, 0.25, 0.25)
    # Scenes are drawn, so more of them do what augmentation would do.
    config.data.augment = ({"name": "flip_horizontal"},)
    config.localization.box_weight = 2.0
    config.model.name = "localizer_resnet20_cifar"
    config.optimizer.learning_rate = 4e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup = "5%"
    config.train.batch_size = 32
    config.train.duration = "6 epochs"
    config.train.log_every = 125
    config.eval.every = "1 epoch"
    if variant == "smoke":
        config.data.options = {"size": 32, "train": 64, "test": 32}
        config.model.options = {"encoder": "resnet8_cifar", "hidden": 16}
        config.train.batch_size = 32
        config.train.duration = 4
        config.eval.every = 2
    return config
