"""Human pose on Leeds Sports Pose Extended (Johnson and Everingham 2011): 14 joints of a person.

    python train.py --config configs/pose/lsp.py:hourglass2 --config.data.dir=DIR --workdir runs/lsp

DIR holds `joints.mat` and `images/im00001.jpg`, ... (http://sam.johnson.io/research/lspet.html).
The first 75 % of the images that are there are trained on. The network sees a square of 256 pixels
around the person, turned, scaled and shifted at random; PCK is measured by the torso, from the left
shoulder to the right hip. `:hourglass1` (the default) and `:hourglass2` are the published networks
of one and two stacks.

`:small` is the network of configs/pose/shapes.py on squares of 128 pixels, for two CPU cores. It
may start from a run there:

    python train.py --config configs/pose/lsp.py:small --config.data.dir=DIR --workdir runs/lsp \\
        --config.model.weights=run:runs/shapes_hourglass

`:smoke` trains a small network on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("hourglass1", "hourglass2", "small", "smoke"))
    config = default_config("pose")
    config.data.source = "lsp"
    config.data.dir = "data/lsp_extended"
    config.data.cache = True
    config.data.max_instances = 1
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    size = 128 if variant == "small" else 256
    crop = {"name": "crop_object", "size": size, "scale": 1.1}
    # As the authors augment, but for more rotation: athletes are upside down more often.
    config.data.train_transforms = (
        {**crop, "scale_range": (0.75, 1.25), "rotation": 45.0, "shift": 0.1},
    )
    config.data.eval_transforms = (crop,)
    config.data.augment = (
        {"name": "flip_horizontal"},
        {"name": "random_color_jitter", "brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
        {"name": "random_greyscale", "probability": 0.1},
    )
    config.pose.reference = "left shoulder,right hip"
    config.pose.flip_test = True
    config.model.name = variant if variant == "hourglass2" else "hourglass1"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0
    config.optimizer.ema = 0.999
    config.schedule.name = "cosine"
    config.schedule.warmup = "3%"
    config.train.batch_size = 16
    config.train.duration = "100 epochs"
    config.eval.every = "10 epochs"
    config.checkpoint.every = "10 epochs"
    if variant == "small":
        config.model.name, config.model.options = "hourglass2", {"features": 64, "depth": 3}
        config.optimizer.learning_rate = 4e-3
        config.optimizer.ema = 0.99
        config.train.duration = "300 epochs"  # of the few images that a laptop has
        config.eval.every = config.checkpoint.every = "50 epochs"
    if variant == "smoke":
        config.data.source, config.data.name, config.data.dir = "tfds", "shapes", ""
        config.data.options = {"size": 32, "train": 32, "test": 16}
        config.data.train_transforms = ({**config.data.train_transforms[0], "size": 32},)
        config.data.eval_transforms = ({**crop, "size": 32},)
        config.data.augment = config.data.augment[1:]  # shapes have no left and right
        config.pose.reference, config.pose.flip_test = "centre,first", False
        config.model.name, config.model.options = "hourglass1", {"features": 16, "depth": 1}
        config.train.batch_size = 8
        config.train.duration = 4
        config.eval.every = 2
    return config
