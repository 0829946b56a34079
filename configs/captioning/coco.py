"""Captions of COCO (Chen et al. 2015, https://arxiv.org/abs/1504.00325), five a photograph.

    python train.py --config configs/captioning/coco.py:show_attend_tell \\
        --config.data.dir=COCO --workdir runs/coco_captions
    jaxvision evaluate --workdir runs/coco_captions

COCO holds `train2017`, `val2017` and `annotations/captions_{train,val}2017.json`. The encoder has
weights of ImageNet, which are fetched, stays as it is for half of the training, and then learns at
a tenth of the rate. Variants: `nic`, `cnn_rnn`, `show_attend_tell` (the default), `hard_attention`,
`cnn_self_attention`, `cnn_transformer`, `vit_transformer`, `vit_gpt2`; their sizes are the papers'.
CIDEr as the reward goes on from a run:

    python train.py --config configs/captioning/coco.py:show_attend_tell --config.data.dir=COCO \\
        --config.captioning.self_critical=True --config.captioning.label_smoothing=0 \\
        --config.data.caption_frequencies=True --config.optimizer.learning_rate=5e-5 \\
        --config.model.weights=run:runs/coco_captions --workdir runs/coco_self_critical

The published ViT and GPT-2 needs no training:

    jaxvision predict --model vit_gpt2 --pretrained photo.jpg --output predictions

`:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import (
    CAPTIONERS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    caption_shapes,
    learn_captions,
)
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*CAPTIONERS, "smoke"))
    config = default_config("captioning")
    learn_captions(config)
    config.data.source, config.data.dir = "coco", "data/coco"
    config.data.options = {
        "images": "{split}2017",
        "annotations": "annotations/captions_{split}2017.json",
    }
    config.data.test = "val"
    config.data.min_count = 5
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
    config.data.train_transforms = (
        {"name": "random_resized_crop", "size": 224, "scale": (0.6, 1.0)},
    )
    config.data.eval_transforms = ({"name": "resize", "size": 224},)
    config.data.augment = ({"name": "flip_horizontal"},)
    config.model.name = variant if variant in CAPTIONERS else "show_attend_tell"
    config.model.encoder_weights = "default"
    config.captioning.frozen_encoder = 0.5
    config.captioning.decoding = "beam"
    config.optimizer.learning_rate = 4e-4
    config.optimizer.lr_multipliers = (("^encoder", 0.1),)
    if not config.model.name.startswith("vit"):  # those have no batch norms
        config.optimizer.freeze_statistics = ("encoder",)
    config.train.batch_size = 64
    config.train.duration = "20 epochs"
    config.eval.every = config.checkpoint.every = "1 epoch"
    if variant == "smoke":
        caption_shapes(config)
    return config
