"""DeepLab v3+ on PASCAL VOC 2012: 20 classes and background (Everingham et al. 2012).

    python train.py --config configs/segmentation/voc.py --config.data.dir=VOCdevkit/VOC2012

The recipe of Chen et al. 2018 (https://arxiv.org/abs/1802.02611): crops of 513, scales of 0.5 to 2,
the polynomial schedule, an encoder from ImageNet; 30,000 steps of 16 images. With the additional
masks of Hariharan et al. 2011 as `SegmentationClassAug` and the list `trainaug`:
`--config.data.train=trainaug --config.data.options.masks=SegmentationClassAug`. `:fcn8s` is the
network of Long et al. 2014, from the VGG-16 of `--config.model.weights`. Average over scales and
mirror images with `--config.segmentation.scales="(0.5,0.75,1.0,1.25,1.5,1.75)"
--config.segmentation.flip=true`.
`:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import IMAGENET_MEAN, IMAGENET_STD, segment_shapes
from jaxvision.tasks import default_config

CLASSES = """
background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow,
diningtable, dog, horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor
"""


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("fcn8s", "smoke"))
    config = default_config("segmentation")
    config.data.source = "masks"
    config.data.dir = "data/VOCdevkit/VOC2012"
    config.data.options = {
        "images": "JPEGImages",
        "masks": "SegmentationClass",
        "list": "ImageSets/Segmentation/{split}.txt",
    }
    config.data.test = "val"
    config.data.classes = tuple(name.strip() for name in CLASSES.split(","))
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
    config.data.train_transforms = (
        {"name": "random_scale", "scale": (0.5, 2.0)},
        {"name": "random_crop", "size": 513, "max_share": 0.75},
    )
    config.data.eval_transforms = ({"name": "pad_to", "size": 513},)
    config.data.augment = ({"name": "flip_horizontal"},)
    config.model.name = "deeplabv3plus_resnet50"
    config.model.encoder_weights = "default"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.007
    config.optimizer.weight_decay = 4e-5
    config.optimizer.lr_multipliers = (("^encoder/", 0.1),)
    config.schedule.name, config.schedule.power = "polynomial", 0.9
    config.train.batch_size = 16
    config.train.duration = 30_000
    config.eval.every = config.checkpoint.every = 3_000
    if variant == "fcn8s":
        config.model.name, config.model.encoder_weights = "fcn8s", ""
        config.optimizer.lr_multipliers = ()
        config.optimizer.learning_rate = 1e-3
        config.train.batch_size = 4
    if variant == "smoke":
        segment_shapes(config)
        config.model.options = {"encoder": "resnet18", "width": 16}
        config.model.options["encoder_options"] = {"depths": (1, 1, 1, 1)}
    return config
