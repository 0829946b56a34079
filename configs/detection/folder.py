"""A detector of your own objects, from weights of ImageNet: boxes in YOLO, COCO or VOC layout.

    jaxvision data check --config configs/detection/folder.py --config.data.dir=DIR
    python train.py --config configs/detection/folder.py --config.data.dir=DIR --workdir runs/mine
    jaxvision predict --workdir runs/mine photo.jpg --output predictions

DIR holds `images/{train,test}`, `labels/{train,test}` and `data.yaml`; other layouts
by `--config.data.source=coco` or `voc`: docs/own_boxes.md. FCOS on a ResNet-50, at 640 pixels
with mirror images and mosaics; `:retinanet` and `:fasterrcnn` likewise. On a CPU take a smaller
one: `--config.model.options.encoder=resnet18 --config.model.options.width=64`. `:smoke` runs on
built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import IMAGENET_MEAN, IMAGENET_STD, detect_shapes
from jaxvision.tasks import default_config

NETWORKS = {
    "fcos": "fcos_resnet50_fpn",
    "retinanet": "retinanet_resnet50_fpn_v2",
    "fasterrcnn": "fasterrcnn_resnet50_fpn",
}


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*NETWORKS, "smoke"))
    config = default_config("detection")
    config.data.source = "yolo"
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
    config.data.train_transforms = config.data.eval_transforms = (
        {"name": "letterbox", "size": 640},
    )
    config.data.augment = (
        {"name": "flip_horizontal"},
        {"name": "random_color_jitter", "brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
        {"name": "mosaic", "probability": 0.5},
    )
    config.model.name = NETWORKS.get(variant, NETWORKS["fcos"])
    config.model.options = {"encoder": "resnet50"}
    config.model.encoder_weights = "default"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-4
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0
    config.optimizer.ema = 0.999
    config.schedule.name = "cosine"
    config.schedule.warmup = "5%"
    config.train.batch_size = 8
    config.train.duration = "50 epochs"
    config.eval.every = config.checkpoint.every = "1 epoch"
    if variant == "smoke":
        detect_shapes(config)
        config.optimizer.ema = 0.0
        config.model.options = {
            "encoder": "resnet18",
            "encoder_options": {"depths": (1, 1, 1, 1)},
            "width": 32,
            "depth": 1,
        }
    return config
