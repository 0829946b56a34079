"""Street scenes of Cityscapes (Cordts et al. 2016, https://arxiv.org/abs/1604.01685): 19 classes.

    python train.py --config configs/segmentation/cityscapes.py --config.data.dir=DIR

DIR holds `leftImg8bit/{train,val}/` and `gtFine/{train,val}/` as they are downloaded; the raw
`labelIds` are mapped here. DeepLab v3+ on crops of 769x769, 90,000 steps of 16 images, as Chen et
al. 2018 (https://arxiv.org/abs/1802.02611); whole images of 2048x1024 are evaluated. `:sliding`
evaluates in windows of 769 that overlap by a third. `:hard` trains on the hardest pixels alone.
`:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import IMAGENET_MEAN, IMAGENET_STD, segment_shapes
from jaxvision.tasks import default_config

CLASSES = """
road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation,
terrain, sky, person, rider, car, truck, bus, train, motorcycle, bicycle
"""
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("sliding", "hard", "smoke"))
    config = default_config("segmentation")
    config.data.source = "masks"
    config.data.dir = "data/cityscapes"
    config.data.options = {
        "images": "leftImg8bit/{split}",
        "masks": "gtFine/{split}",
        "rename": ("_leftImg8bit", "_gtFine_labelIds"),
    }
    config.data.test = "val"
    config.data.classes = tuple(name.strip().replace("\n", " ") for name in CLASSES.split(","))
    config.data.mask_values = LABEL_IDS
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
    config.data.train_transforms = (
        {"name": "random_scale", "scale": (0.5, 2.0)},
        {"name": "random_crop", "size": 769, "max_share": 0.75},
    )
    config.data.augment = (
        {"name": "flip_horizontal"},
        {"name": "random_color_jitter", "brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
    )
    config.model.name = "deeplabv3plus_resnet101"
    config.model.encoder_weights = "default"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.01
    config.optimizer.weight_decay = 5e-4
    config.schedule.name, config.schedule.power = "polynomial", 0.9
    config.train.batch_size = 16
    config.train.duration = 90_000
    config.eval.every = config.checkpoint.every = 5_000
    config.eval.batch_size = 8
    if variant == "sliding":
        config.segmentation.window, config.segmentation.overlap = (769, 769), 1 / 3
    if variant == "hard":
        config.segmentation.hard_share = 1 / 16
    if variant == "smoke":
        segment_shapes(config)
        config.model.options = {"encoder": "resnet18", "width": 16}
        config.model.options["encoder_options"] = {"depths": (1, 1, 1, 1)}
        config.segmentation.window = (24, 24)
    return config
