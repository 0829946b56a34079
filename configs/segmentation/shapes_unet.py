"""A U-Net on the built-in `shapes`: ten classes of textured, occluded, shaded shapes.

python train.py --config configs/segmentation/shapes_unet.py
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import SHAPES
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("segmentation")
    config.data.name = "shapes"
    config.data.options = {"size": 32, "train": 12000, "test": 500}
    config.data.classes = ("background", *SHAPES)
    config.data.cache = True
    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.25, 0.25, 0.25)
    # Scenes are drawn, so more of them do what augmentation would do.
    config.data.augment = ({"name": "flip_horizontal"},)
    # Three quarters of the pixels are background.
    config.segmentation.class_weights = (0.3,) + (1.0,) * 10
    config.model.name = "unet"
    config.model.options = {"width": 16, "depth": 3}
    config.optimizer.learning_rate = 4e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup = "5%"
    config.train.batch_size = 32
    config.train.duration = "8 epochs"
    config.train.log_every = 100
    config.eval.every = "20%"
    if variant == "smoke":
        config.data.options = {"size": 32, "train": 64, "test": 32}
        config.model.options = {"width": 8, "depth": 2}
        config.train.duration = "2 epochs"
        config.eval.every = "1 epoch"
    return config
