"""A segmentation network fine-tuned on your own folder of images and masks.

    python train.py --config configs/segmentation/folder.py --config.data.dir=DIR \\
        --config.data.classes="('background','crack')"

DIR holds `train/` and `test/` with images, and `trainannot/` and `testannot/` with a PNG of class
indices each, of the same name; 255 is ignored. Or it holds `images/` and `masks/`, which are split
by the names of the files. DeepLab v3+ with an encoder from ImageNet: another one by
`--config.model.options.encoder=resnet34`, another network by `--config.model.name`
(docs/segmentation.md has them), weights of a whole network by `--config.model.weights`. Rare
classes are sampled more often. `:tiles` is for large images: crops to train on, windows to
evaluate. `:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import IMAGENET_MEAN, IMAGENET_STD, segment_shapes
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("tiles", "smoke"))
    config = default_config("segmentation")
    config.data.source = "masks"
    config.data.dir = "data/mine"
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
    config.data.on_corrupt = "skip"
    config.data.balance = 0.3
    config.data.train_transforms = (
        {"name": "resize", "size": 512},
        {"name": "random_scale", "scale": (0.5, 2.0)},
        {"name": "random_crop", "size": 384, "max_share": 0.75},
    )
    config.data.eval_transforms = ({"name": "resize", "size": 512},)
    config.data.augment = (
        {"name": "flip_horizontal"},
        {"name": "random_color_jitter", "brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
    )
    config.segmentation.loss = "cross_entropy+dice"
    config.model.name = "deeplabv3plus_resnet50"
    config.model.encoder_weights = "default"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.01
    config.optimizer.lr_multipliers = (("^encoder/", 0.1),)
    config.optimizer.ema = 0.999
    config.schedule.name, config.schedule.warmup = "polynomial", "5%"
    config.train.batch_size = 8
    config.train.duration = "60 epochs"
    config.eval.every = "5 epochs"
    if variant == "tiles":  # whatever is smaller than a crop is padded
        config.data.train_transforms = config.data.train_transforms[1:]
        config.data.eval_transforms = ()
        config.eval.batch_size = 1
        config.segmentation.window = (384, 384)
    if variant == "smoke":
        segment_shapes(config)
        config.model.options = {"encoder": "resnet18", "width": 16}
        config.model.options["encoder_options"] = {"depths": (1, 1, 1, 1)}
    return config
