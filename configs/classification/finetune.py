"""Fine-tuning published weights on your own folder of images.

    python train.py --config configs/classification/finetune.py --config.data.dir=DIR

DIR holds `train/<class>/*.jpg` and `test/<class>/*.jpg`. The network is timm's ViT-S/16, trained on
ImageNet-21k and -1k; its head is replaced, and each layer learns at 0.75 of the rate of the next.
Any other: --config.model.name=resnet50 --config.model.weights=default; `jaxvision info weights`
lists them. Freeze what shall stay: --config.optimizer.freeze="['patch_embed', 'blocks_[0-5]/']".

The variant `:fashion` shows what it brings: a ViT trained on MNIST (weights of
researchase/vit-mnist-explorations, a file given as --config.model.weights=FILE) learns
Fashion-MNIST from 2,000 images; `:fashion_scratch` learns the same from nothing. `:smoke` runs on
built-in digits.

| Fashion-MNIST, 2,000 training images, 20 epochs | test accuracy |
|---|---|
| `:fashion_scratch` | see README |
| `:fashion` from the MNIST weights | see README |
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant, default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("fashion", "fashion_scratch", "smoke"))
    config = default_config()
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
    config.loss.label_smoothing = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.layer_decay = 0.75
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0
    config.schedule.warmup = "10%"
    config.train.batch_size = 64
    config.train.duration = "20 epochs"
    if variant:
        config.data.train_transforms = config.data.eval_transforms = ()
        config.data.channels = 1
        config.data.mean, config.data.std = (0.286,), (0.353,)
        config.model.name = "vit_mnist"
        config.model.options = {}
        config.model.weights = ""
        config.optimizer.learning_rate = 2e-3
    if variant.startswith("fashion"):
        config.data.source, config.data.dir = "idx", "data/fashion_mnist"
        config.data.train = "train[:2000]"
        config.data.cache = True
        config.model.reset_classifier = variant == "fashion"
    if variant == "smoke":
        config.data.source, config.data.name, config.data.dir = "tfds", "digits", ""
        config.data.train_transforms = ({"name": "resize", "size": 28},)
        config.data.eval_transforms = ({"name": "resize", "size": 28},)
        config.model.options = {"depth": 1}
        config.optimizer.learning_rate = 1e-3
        config.train.duration = "1 epoch"
    return config
