"""Fine-tuning published weights on your own folder of images.

    python train.py --config configs/classification/finetune.py --config.data.dir=DIR

DIR holds `train/<class>/*.jpg` and `test/<class>/*.jpg`. The network is timm's ViT-S/16, trained on
ImageNet-21k and -1k; its head is replaced, and each layer learns at 0.75 of the rate of the next.
Any other: --config.model.name=resnet50 --config.model.weights=default; `jaxvision info weights`
lists them. Freeze what shall stay: --config.optimizer.freeze="['patch_embed', 'blocks_[0-5]/']".

The variant `:squeezenet` is for a CPU: SqueezeNet 1.0 on 96 pixels, from its authors' weights of
ImageNet, 0.7 MB: --config.model.weights=compressed_SqueezeNet.net, the file of
https://github.com/songhan/SqueezeNet-Deep-Compression. After a minute on 1,000 images of CIFAR-10
66.5 % of others are right: docs/tutorial.md.

`:fashion` shows what it brings: ResNet-20 trained on CIFAR-10 (akamaster's
resnet20-12fca82f.th, given as --config.model.weights=FILE) learns Fashion-MNIST, grey images of
other things, from 2,000 of them: 88.3 % of the test images are right after 20 epochs, and 83.3 %
without the weights. `:smoke` runs on built-in digits.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.tasks import default_config


def _squeezenet(config: ConfigDict) -> None:
    """Photographs of 96 pixels, less ImageNet's mean, as SqueezeNet's authors had them."""
    config.data.mean = (123 / 255, 117 / 255, 104 / 255)
    config.data.std = (1 / 255,)
    config.data.train_transforms = (
        {"name": "random_resized_crop", "size": 96, "scale": (0.4, 1.0)},
    )
    config.data.eval_transforms = (
        {"name": "resize_shorter", "size": 108},
        {"name": "center_crop", "size": 96},
    )
    config.model.name = "squeezenet1_0"
    config.model.options = {}
    config.model.weights = ""
    config.train.batch_size = 32
    config.train.duration = "15 epochs"
    config.eval.every = "3 epochs"


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("squeezenet", "fashion", "smoke"))
    config = default_config("classification")
    config.data.source = "folder"
    config.data.dir = "data/images"
    config.data.mean = config.data.std = (0.5, 0.5, 0.5)
    config.data.train_transforms = (
        {"name": "random_resized_crop", "size": 224, "scale": (0.4, 1.0)},
    )
    config.data.eval_transforms = (
        {"name": "resize_shorter", "size": 248, "interpolation": "bicubic"},
        {"name": "center_crop", "size": 224},
    )
    config.data.augment = ({"name": "flip_horizontal"},)
    config.model.name = "vit_small_patch16_224"
    config.model.weights = "augreg_in21k_ft_in1k"
    config.model.options = {"drop_path": 0.1}
    config.classification.label_smoothing = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.layer_decay = 0.75
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0
    config.schedule.warmup = "10%"
    config.train.batch_size = 64
    config.train.duration = "20 epochs"
    if variant == "squeezenet":
        _squeezenet(config)
    if variant in ("fashion", "smoke"):
        config.data.train_transforms = config.data.eval_transforms = ()
        config.data.channels = 1
        config.data.mean, config.data.std = (0.449,), (0.226,)  # ImageNet's, of grey images
        config.model.name = "resnet20_cifar"
        config.model.options = {}
        config.model.weights = ""
        config.optimizer.learning_rate = 3e-3
        config.optimizer.layer_decay = 0.9
    if variant == "fashion":
        config.data.source, config.data.dir = "idx", "data/fashion_mnist"
        config.data.train = "train[:2000]"
        config.data.cache = True
        config.model.reset_classifier = True
    if variant == "smoke":
        config.data.source, config.data.name, config.data.dir = "tfds", "digits", ""
        config.model.name = "resnet8_cifar"
        config.train.duration = "1 epoch"
    return config
