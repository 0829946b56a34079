"""DINO on handwritten digits with a tiny ViT: Caron et al. 2021, without labels.

    python train.py --config configs/pretraining/digits_dino.py --workdir runs/digits_dino
    jaxvision classify knn --features runs/digits_dino --metric cosine

Two global views of 60 to 100 % of the area and two local ones of 30 to 60 %, of digits enlarged to
16x16 pixels. Features are the mean of the patches, and the head is batch-normalised: both keep so
small a network from collapsing early. `knn_accuracy` is measured with labels that training never
sees. `:smoke` trains a few steps. Random weights to compare with:
`--config.train.duration=1 --config.optimizer.learning_rate=1e-9`.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("pretraining")
    config.data.name = "digits"
    config.data.channels = 1
    config.data.cache = True
    config.data.mean = (0.305,)
    config.data.std = (0.376,)
    ratio = (0.8, 1.25)
    config.data.train_transforms = (
        {
            "name": "views",
            "views": {
                "global": {
                    "count": 2,
                    "transforms": [
                        {
                            "name": "random_resized_crop",
                            "size": 16,
                            "scale": (0.6, 1.0),
                            "ratio": ratio,
                        }
                    ],
                },
                "local": {
                    "count": 2,
                    "transforms": [
                        {
                            "name": "random_resized_crop",
                            "size": 8,
                            "scale": (0.3, 0.6),
                            "ratio": ratio,
                        }
                    ],
                },
            },
        },
    )
    config.data.eval_transforms = ({"name": "resize", "size": 16},)
    config.data.augment = (
        {"name": "random_affine", "degrees": 12.0, "scale": (0.9, 1.1), "shear": 8.0},
        {"name": "random_color_jitter", "brightness": 0.4, "contrast": 0.4},
    )
    config.model.name = "vit_tiny_patch16_224"
    config.model.options = {
        "patch_size": 4,
        "width": 64,
        "depth": 3,
        "num_heads": 4,
        "pool": "mean",
    }
    config.pretraining.prototypes = 256
    config.pretraining.hidden = 256
    config.pretraining.bottleneck = 64
    config.pretraining.head_norm = True
    config.pretraining.teacher_momentum = 0.98
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.04
    config.optimizer.clip_norm = 3.0
    config.schedule.warmup = "10%"
    config.train.batch_size = 128
    config.train.duration = "120 epochs"
    config.train.log_every = 110
    config.eval.every = "20 epochs"
    config.eval.pictures = 200
    config.checkpoint.every = "20 epochs"
    if variant == "smoke":
        config.model.options = {"patch_size": 4, "width": 24, "depth": 1, "num_heads": 2}
        config.pretraining.prototypes, config.pretraining.hidden = 64, 32
        config.train.duration = 4
        config.eval.every = 2
    return config
