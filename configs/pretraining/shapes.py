"""Self-supervised learning on the built-in `shapes`, by small vision transformers.

    python train.py --config configs/pretraining/shapes.py:dino --workdir runs/shapes_dino
    jaxvision probe runs/shapes_dino --config configs/pretraining/shapes.py --baselines

4,000 scenes of 64 pixels, 500 for the test; the class is that of the largest shape, which training
never sees. Each variant is a method. `:smoke` is `dino` for a few steps.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import crops, global_and_local_views, image_gpt
from jaxvision.tasks import default_config

VIT = {"patch_size": 8, "width": 128, "depth": 4, "num_heads": 4}


def dino(config: ConfigDict) -> None:
    """Caron et al. 2021, https://arxiv.org/abs/2104.14294."""
    global_and_local_views(config, 64, 32, 2, local_scale=(0.1, 0.4), sigma=(0.1, 1.0))
    config.model.name = "vit_tiny_patch16_224"
    config.model.options = VIT
    own = config.pretraining
    own.prototypes, own.hidden, own.bottleneck = 1024, 512, 128
    own.teacher_momentum = 0.99
    own.head_norm = True
    config.optimizer.last_weight_decay = 0.4


def mocov3(config: ConfigDict) -> None:
    """Chen et al. 2021, https://arxiv.org/abs/2104.02057."""
    global_and_local_views(config, 64, scale=(0.2, 1.0), sigma=(0.1, 1.0))
    config.model.name = "vit_tiny_patch16_224"
    config.model.options = {**VIT, "positions": "fixed"}
    config.pretraining.method = "mocov3"
    config.pretraining.hidden, config.pretraining.bottleneck = 512, 128
    config.pretraining.teacher_momentum = 0.99
    config.optimizer.freeze = ("^backbone/patch_embed/",)


def mae(config: ConfigDict) -> None:
    """He et al. 2021, https://arxiv.org/abs/2111.06377."""
    crops(config, 64)
    config.model.name = "mae_vit_base_patch16_224"
    config.model.options = {"encoder_options": VIT, "width": 96, "depth": 2, "num_heads": 3}
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.05
    config.train.duration = "120 epochs"


def beit(config: ConfigDict) -> None:
    """Bao et al. 2021, https://arxiv.org/abs/2106.08254; tokens of configs/pretraining/dvae.py."""
    crops(config, 64)
    config.model.name = "beit_base_patch16_224_mim"
    config.model.options = {"encoder_options": VIT, "codes": 512}
    own = config.pretraining
    own.hidden_patches, own.least_block = 25, 5
    own.tokenizer.network = "dvae"
    own.tokenizer.options = {"groups": 3, "blocks": 1, "hidden": 32, "codes": 512, "width": 64}
    own.tokenizer.weights = "run:runs/shapes_dvae"
    own.tokenizer.size = 32
    config.optimizer.weight_decay = 0.05


def denoising(config: ConfigDict) -> None:
    """Vincent et al. 2008, https://doi.org/10.1145/1390156.1390294."""
    crops(config, 64)
    config.model.name = "denoising_vit_small_patch16_224"
    config.model.options = {"encoder_options": VIT}
    config.pretraining.corruption_amount = 0.5


def context(config: ConfigDict) -> None:
    """Pathak et al. 2016, https://arxiv.org/abs/1604.07379: random blocks, a quarter at most."""
    crops(config, 64)
    config.model.name = "context_vit_small_patch16_224"
    config.model.options = {"encoder_options": VIT}
    own = config.pretraining
    own.context_squares, own.context_side, own.context_overlap = 4, 0.25, 2


def igpt(config: ConfigDict) -> None:
    """Chen et al. 2020, https://proceedings.mlr.press/v119/chen20s.html, of 16x16 pixels."""
    image_gpt(config, 16, 64)
    config.model.options = {"size": 16, "width": 128, "depth": 6, "num_heads": 4}
    config.train.batch_size = 32
    config.train.duration = "15 epochs"
    config.eval.every = config.checkpoint.every = "5 epochs"


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
    config.data.name = "shapes"
    config.data.options = {"size": 64, "train": 4000, "test": 500}
    config.data.cache = True
    config.data.mean, config.data.std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.04
    config.optimizer.clip_norm = 3.0
    config.schedule.name = "cosine"
    config.schedule.warmup = "10%"
    config.train.batch_size = 128
    config.train.duration = "60 epochs"
    config.eval.every = config.checkpoint.every = "10 epochs"
    METHODS.get(variant, dino)(config)
    if variant == "smoke":
        config.data.options = {"size": 64, "train": 64, "test": 32}
        config.model.options = {**VIT, "width": 24, "depth": 1, "num_heads": 2}
        config.pretraining.prototypes, config.pretraining.hidden = 64, 32
        config.train.batch_size = 16
        config.train.duration = config.eval.every = 2
        config.schedule.warmup = 0
    return config
