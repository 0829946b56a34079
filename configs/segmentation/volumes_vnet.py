"""V-Net on synthetic volumes whose answer is known: an organ, its lesions, and what is neither.

    python train.py --config configs/segmentation/volumes_vnet.py

A small V-Net on the built-in `volumes` of 32x32x32 voxels, by the Dice loss of the paper (Milletari
et al. 2016, https://arxiv.org/abs/1606.04797) beside cross-entropy: mean Dice above 0.95. Your own
volumes are `.npy` files of uint8 in folders of images and masks; see docs/segmentation.md.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("segmentation")
    config.data.name = "volumes"
    config.data.options = {"size": 32, "train": 96, "test": 32}
    config.data.classes = ("background", "organ", "lesion")
    config.data.channels = 1
    config.data.mean, config.data.std = (0.27,), (0.16,)
    config.data.cache = True
    config.model.name = "vnet"
    config.model.options = {"width": 8, "depths": (1, 2, 2), "up_depths": (2, 1), "dropout": 0.0}
    config.segmentation.loss = "cross_entropy+dice"
    config.segmentation.loss_options = {"dice": {"squared": True}}
    config.optimizer.learning_rate = 5e-3
    config.optimizer.ema = 0.9
    config.schedule.warmup = "10%"
    config.train.batch_size = 4
    config.train.duration = "12 epochs"
    config.train.log_every = 12
    config.eval.every = "2 epochs"
    config.checkpoint.best_metric = "mdice"
    if variant == "smoke":
        config.data.options = {"size": 16, "train": 8, "test": 4}
        config.model.options = {"width": 4, "depths": (1, 1), "up_depths": (1,)}
        config.train.duration = "1 epoch"
    return config
