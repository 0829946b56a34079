"""Self-supervised learning on ImageNet by the published recipes.

    python train.py --config configs/pretraining/imagenet.py:dino --config.data.dir=DIR
    jaxvision probe RUN --config configs/classification/imagenet_vit.py --config.data.dir=DIR

DIR holds `train/<class>/*.JPEG` and `val/<class>/*.JPEG`. Each variant is a method with the batch,
rate and length of its paper; they want many accelerators. `:smoke` is `dino` on built-in shapes.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import crops, global_and_local_views, image_gpt, imagenet, reduce_to_shapes
from jaxvision.tasks import default_config


def dino(config: ConfigDict) -> None:
    """ViT-S/16, Caron et al. 2021, https://arxiv.org/abs/2104.14294: k-NN 74.5, linear 77.0 %."""
    global_and_local_views(config, 224, 96, 10, scale=(0.25, 1.0), local_scale=(0.05, 0.25))
    config.model.name = "vit_small_patch16_224"
    config.model.options = {"drop_path": 0.1}
    own = config.pretraining
    own.teacher_momentum = 0.996
    own.teacher_temperature, own.first_teacher_temperature = 0.07, 0.04
    own.teacher_temperature_warmup = 30 / 800
    own.frozen_prototypes = 1 / 800
    config.optimizer.learning_rate = 0.0005 * 1024 / 256
    config.optimizer.weight_decay, config.optimizer.last_weight_decay = 0.04, 0.4
    config.optimizer.decay_mask = "(kernel|weight_v|cls_token|pos_embed)$"
    config.schedule.warmup = "10 epochs"
    config.train.batch_size = 1024
    config.train.duration = "800 epochs"


def mocov3(config: ConfigDict) -> None:
    """ViT-S/16, Chen et al. 2021, https://arxiv.org/abs/2104.02057: linear 73.2 %."""
    global_and_local_views(config, 224, scale=(0.08, 1.0))
    config.model.name = "vit_small_patch16_224"
    config.model.options = {"positions": "fixed", "kernel_init": "xavier"}
    own = config.pretraining
    own.method = "mocov3"
    own.hidden, own.bottleneck, own.temperature = 4096, 256, 0.2
    own.teacher_momentum = 0.99
    config.optimizer.freeze = ("^backbone/patch_embed/",)
    config.optimizer.learning_rate = 1.5e-4 * 4096 / 256
    config.optimizer.weight_decay = 0.1
    config.schedule.warmup = "40 epochs"
    config.train.batch_size = 4096
    config.train.duration = "300 epochs"


def mae(config: ConfigDict) -> None:
    """ViT-B/16, He et al. 2021, https://arxiv.org/abs/2111.06377: fine-tuned 83.6 %."""
    crops(config, 224)
    config.model.name = "mae_vit_base_patch16_224"
    config.optimizer.learning_rate = 1.5e-4 * 4096 / 256
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup = "40 epochs"
    config.train.batch_size = 4096
    config.train.duration = "1600 epochs"


def beit(config: ConfigDict) -> None:
    """BEiT-B/16, Bao et al. 2021, https://arxiv.org/abs/2106.08254: fine-tuned 83.2 %.

    Tokens are those of DALL-E's encoder, of images of 112 pixels.
    """
    crops(config, 224, scale=(0.08, 1.0))
    jitter = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
    config.data.augment = (*config.data.augment, {"name": "random_color_jitter", **jitter})
    config.model.name = "beit_base_patch16_224_mim"
    config.model.options = {"encoder_options": {"drop_path": 0.1}}
    own = config.pretraining
    own.hidden_patches, own.least_block = 75, 16
    own.tokenizer.network, own.tokenizer.weights = "flava_image_codebook", "default"
    own.tokenizer.size = 112
    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 3.0
    config.schedule.warmup = "10 epochs"
    config.train.batch_size = 2048
    config.train.duration = "800 epochs"


def denoising(config: ConfigDict) -> None:
    """ResNet-18, Vincent et al. 2008, https://doi.org/10.1145/1390156.1390294; a recipe of ours."""
    crops(config, 224)
    config.model.name = "denoising_resnet18"
    config.pretraining.corruption_amount = 0.5
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup = "5 epochs"
    config.train.batch_size = 1024
    config.train.duration = "100 epochs"


def context(config: ConfigDict) -> None:
    """AlexNet, Pathak et al. 2016, https://arxiv.org/abs/1604.07379: the centre, squared error.

    Adam at the paper's rate; the length is ours.
    """
    crops(config, 128)
    config.data.eval_transforms = (
        {"name": "resize_shorter", "size": 146},
        {"name": "center_crop", "size": 128},
    )
    config.model.name = "context_alexnet"
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 2e-4
    config.schedule.name = "constant"
    config.train.batch_size = 128
    config.train.duration = "100 epochs"


def igpt(config: ConfigDict) -> None:
    """iGPT-S, Chen et al. 2020, https://proceedings.mlr.press/v119/chen20s.html."""
    image_gpt(config, 32, 512)
    config.train.batch_size = 128
    config.train.duration = 1_000_000
    config.eval.pictures = 8


METHODS: dict[str, Callable[[ConfigDict], None]] = {
    "dino": dino,
    "mocov3": mocov3,
    "mae": mae,
    "beit": beit,
    "igpt": igpt,
    "denoising": denoising,
    "context": context,
}


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*METHODS, "smoke"))
    config = default_config("pretraining")
    imagenet(config)
    config.data.augment = ()
    config.model.dtype = "bfloat16"
    config.optimizer.name = "adamw"
    config.schedule.name = "cosine"
    config.eval.every = config.checkpoint.every = "5 epochs"
    METHODS.get(variant, dino)(config)
    if variant == "smoke":
        reduce_to_shapes(config)
        global_and_local_views(config, 32, 16, 2)
        config.model.options = {"patch_size": 8, "width": 24, "depth": 1, "num_heads": 2}
        config.pretraining.prototypes, config.pretraining.hidden = 64, 32
        config.model.dtype = "float32"
    return config
