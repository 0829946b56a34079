"""Blood cells: detectors on BCCD, 364 photographs of smears with red and white cells and platelets.

    python train.py --config configs/detection/bccd.py:fcos --config.data.dir=BCCD \\
        --config.model.encoder_weights=compressed_SqueezeNet.net --workdir runs/bccd_fcos
    jaxvision evaluate --workdir runs/bccd_fcos
    jaxvision predict --workdir runs/bccd_fcos smear.jpg --output predictions

BCCD is the folder of github.com/Shenggan/BCCD_Dataset with its own lists of splits. The encoder is
SqueezeNet 1.0; compressed_SqueezeNet.net are its authors' weights of ImageNet, from
github.com/songhan/SqueezeNet-Deep-Compression. Without `encoder_weights` it starts from chance.
Photographs are seen at half their size, 320x240. `:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import detect_shapes
from jaxvision.tasks import default_config

_ENCODER = {"encoder": "squeezenet1_0", "width": 128}
NETWORKS = {
    "fcos": ("fcos_resnet50_fpn", {**_ENCODER, "depth": 2, "score_threshold": 0.05}),
    "retinanet": (
        "retinanet_resnet50_fpn_v2",
        {**_ENCODER, "depth": 2, "extra": "last", "max_detections": 100},
    ),
    "fasterrcnn": (
        "fasterrcnn_resnet50_fpn",
        {
            **_ENCODER,
            "strides": (8, 16),
            "anchor_sizes": ((32,), (64,), (128,)),
            "candidates": (500, 500),
            "proposals": (200, 200),
            "anchor_sampling": (128, 0.5, 0.7, 0.3),
            "box_sampling": (128, 0.25, 0.5, 0.5),
            "head_hidden": (256, 256),
        },
    ),
    "ssd": (
        "ssd300_vgg16",
        {
            "encoder": "squeezenet1_0",
            **{"linear": 0, "extras": ((64, 128, 3, 2, 1), (64, 128, 3, 2, 1))},
            **{"ratios": ((2,),) * 4, "scales": (0.08, 0.2, 0.35, 0.5, 0.7), "steps": ()},
            "max_detections": 100,
        },
    ),
    "yolov3": (
        "yolov3",
        {
            "encoder": "squeezenet1_0",
            **{"strides": (8, 16), "widths": (64, 128)},
            "anchors": (((20, 20), (44, 42), (56, 46)), ((49, 54), (62, 58), (108, 98))),
        },
    ),
}


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*NETWORKS, "smoke"))
    config = default_config("detection")
    config.data.source, config.data.dir = "voc", "data/BCCD"
    config.data.validation = "val"
    config.data.cache = True
    # Pixels less the mean of ImageNet, as SqueezeNet's authors had them.
    config.data.mean = (123 / 255, 117 / 255, 104 / 255)
    config.data.std = (1 / 255,)
    config.data.train_transforms = config.data.eval_transforms = (
        {"name": "letterbox", "size": (240, 320)},
    )
    config.data.augment = ({"name": "flip_horizontal"}, {"name": "flip_vertical"})
    config.detection.voc = ("2012",)
    config.model.name, config.model.options = NETWORKS.get(variant, NETWORKS["fcos"])
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup = "5%"
    config.train.batch_size = 8
    config.train.duration = "40 epochs"
    config.eval.every = config.checkpoint.every = "5 epochs"
    if variant == "smoke":
        detect_shapes(config)
        config.data.validation = ""
        config.model.options = {"encoder": "squeezenet1_0", "width": 32, "depth": 1}
    return config
