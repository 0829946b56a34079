"""Captions of your own photographs: a text file beside each, a caption a line.

    jaxvision data check --config configs/captioning/folder.py --config.data.dir=DIR
    python train.py --config configs/captioning/folder.py --config.data.dir=DIR --workdir runs/mine
    jaxvision predict --workdir runs/mine photo.jpg --output predictions

DIR holds `photo.jpg` and `photo.txt`, in any folders; of the photographs in their order the last
tenth is for the test. The encoder has weights of ImageNet, which are fetched. Captions are learnt
as pairs of bytes, so any language does; English may take `--config.data.tokenizer=word`. Variants
as in configs/captioning/coco.py, `cnn_transformer` is the default. `:smoke` runs on built-in
shapes.
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
    config.data.source = "captions"
    config.data.train, config.data.test = "train[:90%]", "train[90%:]"
    config.data.tokenizer, config.data.vocabulary_size = "bpe", 4000
    config.data.max_tokens = 48
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
    config.data.train_transforms = config.data.eval_transforms = ({"name": "resize", "size": 224},)
    config.model.name = variant if variant in CAPTIONERS else "cnn_transformer"
    config.model.encoder_weights = "default"
    config.captioning.frozen_encoder = 1.0
    config.captioning.decoding = "beam"
    config.optimizer.learning_rate = 4e-4
    if not config.model.name.startswith("vit"):  # those have no batch norms
        config.optimizer.freeze_statistics = ("encoder",)
    config.train.batch_size = 32
    config.train.duration = "30 epochs"
    config.eval.every = config.checkpoint.every = "3 epochs"
    if variant == "smoke":
        caption_shapes(config)
        config.data.vocabulary_size = 300
        config.data.max_tokens = 60
    return config
