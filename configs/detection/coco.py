"""COCO by the published recipes, a network a variant.

    python train.py --config configs/detection/coco.py:retinanet --config.data.dir=COCO

COCO holds `train2017`, `val2017` and `annotations/instances_{train,val}2017.json`. All start from
an encoder of ImageNet. What the recipes' authors publish for val2017:

    fcos, retinanet, fasterrcnn  AP 39.2, 36.4, 37.0: torchvision, ResNet-50 with a pyramid; SGD, 26
                                 epochs of 16 images of 800 pixels, the rate divided by ten twice
    ssd300                       AP 25.1: torchvision, 120 epochs of 32 images, crops and expansion
    ssdlite320                   AP 21.3: torchvision, 660 epochs of 192 images, a cosine
    yolov3                       AP 27.9: mmdetection at 320 pixels, 273 epochs of 64 images
    detr                         AP 42.0: its authors, AdamW, 500 epochs of 64 images of 480 to 800

Rates are for the batches said. `:smoke` runs on built-in shapes.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import coco_recipe, detect_shapes
from jaxvision.tasks import default_config

# Network and learning rate of those that share a recipe.
PYRAMIDS = {
    "fcos": ("fcos_resnet50_fpn", 0.01),
    "retinanet": ("retinanet_resnet50_fpn", 0.01),
    "fasterrcnn": ("fasterrcnn_resnet50_fpn", 0.02),
}
# Liu et al. 2016, https://arxiv.org/abs/1512.02325, section 2.2.
_CROPS = ({"name": "ssd_expand"}, {"name": "ssd_crop"})
_COLOURS = {
    "name": "random_color_jitter",
    **{"brightness": 0.125, "contrast": 0.5, "saturation": 0.5, "hue": 0.05, "probability": 0.5},
}


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*PYRAMIDS, *OTHERS, "smoke"))
    config = default_config("detection")
    coco_recipe(config)
    config.model.name, config.optimizer.learning_rate = PYRAMIDS.get(variant, PYRAMIDS["retinanet"])
    if variant in OTHERS:
        OTHERS[variant](config)
    if variant == "smoke":
        detect_shapes(config)
        config.schedule.milestones = ("50%",)
        config.model.options = {
            "encoder": "resnet18",
            "encoder_options": {"depths": (1, 1, 1, 1)},
            "width": 32,
            "depth": 1,
        }
    return config


def _square(config: ConfigDict, size: int) -> None:
    """Crops and expansions, brought to a square; nothing is frozen."""
    config.data.train_transforms = (*_CROPS, {"name": "resize", "size": size})
    config.data.eval_transforms = ({"name": "resize", "size": size},)
    config.data.augment = ({"name": "flip_horizontal"}, _COLOURS)
    config.optimizer.freeze = config.optimizer.freeze_statistics = ()


def _ssd300(config: ConfigDict) -> None:
    config.model.name = "ssd300_vgg16"
    config.model.encoder_weights = "IMAGENET1K_FEATURES"
    _square(config, 300)
    # Pixels less a mean, as these weights have them.
    config.data.mean, config.data.std = (0.48235, 0.45882, 0.40784), (1 / 255,)
    config.optimizer.learning_rate, config.optimizer.weight_decay = 2e-3, 5e-4
    config.schedule.milestones = ("80 epochs", "110 epochs")
    config.train.batch_size, config.train.duration = 32, "120 epochs"


def _ssdlite320(config: ConfigDict) -> None:
    config.model.name = "ssdlite320_mobilenet_v3_large"
    _square(config, 320)
    config.data.mean = config.data.std = (0.5,)
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.15, 4e-5
    config.schedule.name, config.schedule.milestones = "cosine", ()
    config.train.batch_size, config.train.duration = 192, "660 epochs"


def _yolov3(config: ConfigDict) -> None:
    config.model.name = "yolov3"
    _square(config, 320)
    config.data.train_transforms = (*_CROPS, {"name": "letterbox", "size": 320})
    config.data.eval_transforms = ({"name": "letterbox", "size": 320},)
    config.data.mean, config.data.std = (0.0,), (1.0,)
    config.optimizer.learning_rate, config.optimizer.weight_decay = 1e-3, 5e-4
    config.optimizer.clip_norm = 35.0
    config.schedule.milestones, config.schedule.warmup = ("218 epochs", "246 epochs"), 2000
    config.train.batch_size, config.train.duration = 64, "273 epochs"


def _detr(config: ConfigDict) -> None:
    config.model.name = "detr_resnet50"
    (resize,) = config.data.eval_transforms
    config.data.train_transforms = ({**resize, "size": tuple(range(480, 801, 32))},)
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate, config.optimizer.weight_decay = 1e-4, 1e-4
    config.optimizer.lr_multipliers = (("^encoder/", 0.1),)
    config.optimizer.clip_norm = 0.1
    config.optimizer.freeze = ("^encoder/(conv1|bn1|layer1)",)
    config.optimizer.freeze_statistics = ("^encoder/",)
    config.schedule.milestones, config.schedule.warmup = ("400 epochs",), 0
    config.train.batch_size, config.train.duration = 64, "500 epochs"


OTHERS: dict[str, Callable[[ConfigDict], None]] = {
    "ssd300": _ssd300,
    "ssdlite320": _ssdlite320,
    "yolov3": _yolov3,
    "detr": _detr,
}
