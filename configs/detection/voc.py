"""PASCAL VOC: 20 classes (Everingham et al. 2010), by Faster R-CNN, RetinaNet or FCOS on ResNet-50.

    python train.py --config configs/detection/voc.py:fasterrcnn --config.data.dir=VOCdevkit/VOC2007

The usual training set is both years: `data.dir` is one folder, so VOC2007 and VOC2012 are merged
beforehand (their file names differ), with lists `trainval` of both and `test` of 2007. Ren et al.
2015 (https://arxiv.org/abs/1506.01497) report 73.2 % by the rule of 2007, of VGG-16 and both.
The shorter side is 600, the longer at most 1000; SGD, 12 epochs of 16 images, the rate divided by
ten after nine. `:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import IMAGENET_MEAN, IMAGENET_STD, VOC_CLASSES, detect_shapes
from jaxvision.tasks import default_config

# Network and learning rate.
NETWORKS = {
    "fasterrcnn": ("fasterrcnn_resnet50_fpn", 0.02),
    "retinanet": ("retinanet_resnet50_fpn", 0.01),
    "fcos": ("fcos_resnet50_fpn", 0.01),
}


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*NETWORKS, "smoke"))
    config = default_config("detection")
    config.data.source, config.data.dir = "voc", "data/VOCdevkit/VOC2007"
    config.data.train, config.data.test = "trainval", "test"
    config.data.classes = VOC_CLASSES
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
    config.data.train_transforms = config.data.eval_transforms = (
        {"name": "resize_shortest", "size": 600, "longest": 1000},
    )
    config.data.augment = ({"name": "flip_horizontal"},)
    config.detection.voc = ("2007", "2012")
    config.model.name, config.optimizer.learning_rate = NETWORKS.get(
        variant, NETWORKS["fasterrcnn"]
    )
    config.model.encoder_weights = "default"
    config.optimizer.name = "sgd"
    config.optimizer.weight_decay = 1e-4
    config.optimizer.freeze = (r"body/(conv1|bn1|layer1)",)
    config.optimizer.freeze_statistics = (r"body/",)
    config.schedule.name = "step"
    config.schedule.milestones = ("9 epochs",)
    config.schedule.warmup = 500
    config.train.batch_size = 16
    config.train.duration = "12 epochs"
    config.eval.every = config.checkpoint.every = "1 epoch"
    if variant == "smoke":
        detect_shapes(config)
        config.schedule.milestones = ("50%",)
        config.model.options = {
            "encoder": "resnet18",
            "encoder_options": {"depths": (1, 1, 1, 1)},
            "width": 32,
            "anchor_sizes": ((8,), (16,), (32,), (64,), (128,)),
            "candidates": (100, 100),
            "proposals": (32, 32),
            "head_hidden": (32, 32),
        }
    return config
