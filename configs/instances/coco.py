"""Mask R-CNN on COCO by torchvision's recipe; on the people of a few of its photographs.

    python train.py --config configs/instances/coco.py:maskrcnn --config.data.dir=COCO

COCO holds `train2017`, `val2017` and `annotations/instances_{train,val}2017.json`. The recipe of
configs/detection/coco.py; torchvision publishes box AP 37.9 and mask AP 34.6.

`:people` is for two CPU cores: SqueezeNet with its authors' weights of ImageNet, as in
configs/detection/bccd.py, at 320 pixels, on files that benchmarks/people.py gathers:

    python benchmarks/people.py --root DATA --output runs/people --instances IMAGES JSON ...
    python train.py --config configs/instances/coco.py:people --config.data.dir=DATA \\
        --config.model.encoder_weights=compressed_SqueezeNet.net --workdir runs/maskrcnn_people

`:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import (
    REDUCED_FASTER_RCNN,
    TINY_FASTER_RCNN,
    TINY_MASKS,
    coco_recipe,
    detect_shapes,
)
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("maskrcnn", "people", "smoke"))
    config = default_config("instances")
    coco_recipe(config)
    config.model.name = "maskrcnn_resnet50_fpn"
    config.optimizer.learning_rate = 0.02
    if variant == "people":
        _people(config)
    if variant == "smoke":
        detect_shapes(config)
        config.schedule.milestones = ("50%",)
        config.model.options = {**TINY_FASTER_RCNN, **TINY_MASKS}
    return config


def _people(config: ConfigDict) -> None:
    """A reduced network on SqueezeNet, and a recipe for a hundred photographs."""
    config.data.options = {"annotations": "runs/people/people_{split}.json"}
    config.data.test = "test"
    config.data.classes = ("person",)
    config.data.cache = True
    config.data.max_instances = 40
    # Pixels less the mean of ImageNet, as SqueezeNet's authors had them.
    config.data.mean = (123 / 255, 117 / 255, 104 / 255)
    config.data.std = (1 / 255,)
    config.data.train_transforms = config.data.eval_transforms = (
        {"name": "letterbox", "size": 320},
    )
    config.data.augment = (
        {"name": "flip_horizontal"},
        {"name": "random_color_jitter", "brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
    )
    config.model.options = {
        **REDUCED_FASTER_RCNN,
        **{"encoder": "squeezenet1_0", "strides": (8, 16), "width": 128},
        **{"anchor_sizes": ((20, 36), (56, 84), (128, 220))},
        "box_sampling": (128, 0.25, 0.5, 0.5),
        **{"mask_convs": (128, 128), "mask_width": 128},
    }
    config.model.encoder_weights = ""
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0
    config.optimizer.freeze = config.optimizer.freeze_statistics = ()
    config.schedule.name = "cosine"
    config.schedule.warmup = "5%"
    config.train.batch_size = 4
    config.train.duration = "40 epochs"
    config.eval.every = config.checkpoint.every = "10 epochs"
