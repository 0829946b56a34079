"""CIFAR ResNets by the recipe of He et al. 2015, section 4.2: SGD, rate 0.1 divided by 10 twice.

    python train.py --config configs/classification/cifar10.py --config.data.dir=DIR

DIR holds `train/<class>/*.png` and `test/<class>/*.png`. Published weights of
akamaster/pytorch_resnet_cifar10 are evaluated with

    jaxvision evaluate --config configs/classification/cifar10.py --config.data.dir=DIR \\
        --weights resnet20-12fca82f.th

The variants `:resnet32` and `:resnet56` are the deeper networks. `:encoder` is ImageNet's ResNet-18
on images enlarged to 48 pixels, to be an encoder for segmentation afterwards:

    jaxvision export-torch resnet18.safetensors --workdir RUN
    python train.py --config configs/segmentation/camvid.py:deeplabv3plus \\
        --config.model.encoder_weights=resnet18.safetensors --config.data.dir=DIR

`:vit` is the small vision transformer of configs/pretraining/cifar10.py, from random weights or
from what was learned there without labels:

    python train.py --config configs/classification/cifar10.py:vit --config.data.dir=DIR \\
        --config.data.train="train[:1000]" --config.model.weights=run:runs/cifar10_dino \\
        --config.optimizer.layer_decay=0.75

`:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision import presets
from jaxvision.config import check_variant
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("resnet32", "resnet56", "encoder", "vit", "smoke"))
    config = default_config("classification")
    config.data.source = "folder"
    config.data.dir = "data/cifar10"
    config.data.classes = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.data.augment = ({"name": "flip_horizontal"}, {"name": "random_crop", "padding": 4})
    config.data.cache = True
    config.model.name = "resnet20_cifar"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "step"
    config.schedule.milestones = ("50%", "75%")
    config.train.batch_size = 128
    config.train.duration = "200 epochs"
    if variant in ("resnet32", "resnet56"):
        config.model.name = f"{variant}_cifar"
    if variant == "encoder":
        config.data.train_transforms = (
            {"name": "random_resized_crop", "size": 48, "scale": (0.4, 1.0)},
        )
        config.data.eval_transforms = ({"name": "resize", "size": 48},)
        config.data.augment = (
            {"name": "flip_horizontal"},
            {"name": "random_color_jitter", "brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
        )
        config.model.name = "resnet18"
        config.optimizer.nesterov = True
        config.optimizer.learning_rate = 0.05
        config.optimizer.weight_decay = 5e-4
        config.classification.label_smoothing = 0.1
        config.schedule.name = "cosine"
        config.schedule.warmup = "1 epoch"
        config.train.batch_size = 64
        config.train.duration = "10 epochs"
    if variant == "vit":
        presets.crops(config, 32, (0.5, 1.0))
        config.data.mean, config.data.std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
        config.model.name, config.model.options = "vit_tiny_patch16_224", presets.small_vit(32)
        config.optimizer.name = "adamw"
        config.optimizer.learning_rate = 1e-3
        config.optimizer.weight_decay = 0.05
        config.optimizer.clip_norm = 1.0
        config.classification.label_smoothing = 0.1
        config.schedule.name = "cosine"
        config.schedule.warmup = "10%"
        config.train.batch_size = 64
        config.train.duration = "60 epochs"
        config.eval.every = config.checkpoint.every = "20 epochs"
    if variant == "smoke":
        config.data.source, config.data.name, config.data.dir = "tfds", "shapes", ""
        config.data.options = {"size": 32, "train": 256, "test": 64}
        config.data.classes = ()
        config.model.name = "resnet8_cifar"
        config.train.batch_size = 32
        config.train.duration = "1 epoch"
    return config
