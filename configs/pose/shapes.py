"""Key points of shapes, of one that is cut out or of all in a scene, a network a variant.

    python train.py --config configs/pose/shapes.py:hourglass --workdir runs/shapes_hourglass
    jaxvision evaluate --workdir runs/shapes_hourglass --output evaluation
    jaxvision predict --workdir runs/shapes_hourglass photo.jpg --output predictions

`hourglass` and `simple_baseline`: 4,000 scenes, 500 for the test, where the largest shape of each
is looked at; the network sees a square of 64 pixels around it and gives heat maps of 16x16 for its
centre and three points of its own. `keypointrcnn` and `centernet` find all shapes with their points
by the recipe of configs/detection/shapes.py, as `instances`. Networks are reduced so that two CPU
cores train them in a quarter of an hour. Mirroring exchanges other points in each class, and which
point is the first depends on what is upright, so that scenes are neither mirrored nor turned.
docs/pose.md and docs/instances.md say what they reach.
`:smoke` trains a small one for a few steps.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import REDUCED_FASTER_RCNN, learn_shapes
from jaxvision.tasks import default_config

NETWORKS = {
    "hourglass": ("hourglass2", {"features": 64, "depth": 3}),
    "simple_baseline": (
        "simple_baseline_resnet50",
        {"encoder": "resnet18", "encoder_options": {"depths": (2, 2, 2)}, "widths": (64, 64)},
    ),
}
# Learning rate, and epochs: networks that cost less see the scenes more often.
TRAINING = {"hourglass": (8e-3, 30), "simple_baseline": (2e-3, 15)}

OF_SCENES = {
    "keypointrcnn": (
        "keypointrcnn_resnet50_fpn",
        {**REDUCED_FASTER_RCNN, "keypoints": 4, "keypoint_convs": (64, 64, 64)},
    ),
    "centernet": (
        "centernet_pose_resnet18",
        {
            "encoder_options": {"depths": (2, 2, 2), "output_stride": 8},
            "upsampling": (128,),
            "head_width": 64,
            "keypoints": 4,
        },
    ),
}


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*NETWORKS, *OF_SCENES, "smoke"))
    if variant in OF_SCENES:
        config = default_config("instances")
        learn_shapes(config)
        config.model.name, config.model.options = OF_SCENES[variant]
        return config
    config = default_config("pose")
    config.data.name = "shapes"
    config.data.options = {"size": 96, "train": 4000, "test": 500}
    config.data.cache = True
    config.data.max_instances = 1
    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.25, 0.25, 0.25)
    crop = {"name": "crop_object", "size": 64}
    config.data.train_transforms = (
        {**crop, "choice": "random", "scale_range": (0.8, 1.25), "shift": 0.1},
    )
    config.data.eval_transforms = (crop,)
    config.data.augment = (
        {"name": "random_color_jitter", "brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
    )
    network = variant if variant in NETWORKS else "hourglass"
    config.model.name, config.model.options = NETWORKS[network]
    rate, epochs = TRAINING[network]
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = rate
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0
    config.optimizer.ema = 0.99
    config.schedule.name = "cosine"
    config.schedule.warmup = "5%"
    config.train.batch_size = 32
    config.train.duration = f"{epochs} epochs"
    config.eval.every = "5 epochs"
    if variant == "smoke":
        config.data.options = {"size": 32, "train": 32, "test": 16}
        config.data.train_transforms = ({**config.data.train_transforms[0], "size": 32},)
        config.data.eval_transforms = ({**crop, "size": 32},)
        config.model.name, config.model.options = "hourglass1", {"features": 16, "depth": 1}
        config.train.batch_size = 8
        config.train.duration = 4
        config.eval.every = 2
    return config
