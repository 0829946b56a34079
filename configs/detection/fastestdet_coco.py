"""FastestDet on COCO's 80 classes, as its author trained and evaluated it.

    python train.py --config configs/detection/fastestdet_coco.py --config.data.dir=DIR

DIR holds COCO: `train2017`, `val2017` and `annotations/instances_{train,val}2017.json`. The
author's weights (github.com/dog-qiuqiu/FastestDet, 280 epochs; AP50 25.3 % on val2017) are
evaluated by

    jaxvision evaluate --config configs/detection/fastestdet_coco.py --config.data.dir=DIR \\
        --weights weight_AP05_0.253207_280-epoch.pth

and find what is in photographs by `jaxvision predict`, with the same options, `--threshold 0.4` and
`--output FOLDER`. `:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import COCO_CLASSES, detect_shapes
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("detection")
    config.data.source, config.data.dir = "coco", "data/coco"
    config.data.options = {
        "images": "{split}2017",
        "annotations": "annotations/instances_{split}2017.json",
    }
    config.data.test = "val"
    config.data.classes = COCO_CLASSES
    config.data.mean, config.data.std = (0.0,), (1.0,)
    stretch = {"name": "resize", "size": 352, "antialias": False}
    config.data.train_transforms = (
        {"name": "random_resized_crop", "size": 352, "scale": (0.5, 1.0)},
    )
    config.data.eval_transforms = (stretch,)
    config.data.augment = ({"name": "flip_horizontal"},)
    config.detection.clip = False
    config.model.name = "fastestdet"
    config.model.options = {"bgr": True}
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.momentum = 0.949
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "step"
    config.schedule.milestones = ("150 epochs", "250 epochs")
    config.train.batch_size = 96
    config.train.duration = "300 epochs"
    config.eval.every = config.checkpoint.every = "10 epochs"
    if variant == "smoke":
        detect_shapes(config)
        config.model.options = {"widths": (8, 16, 24, 32), "depths": (1, 1, 1)}
    return config
