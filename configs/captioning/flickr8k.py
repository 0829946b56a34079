"""Captions of Flickr8k (Hodosh et al. 2013, https://doi.org/10.1613/jair.3994), five a photograph.

    python train.py --config configs/captioning/flickr8k.py:show_attend_tell \\
        --config.data.dir=FLICKR8K --config.model.encoder_weights=compressed_SqueezeNet.net \\
        --workdir runs/flickr8k
    jaxvision evaluate --workdir runs/flickr8k --output evaluation
    jaxvision predict --workdir runs/flickr8k photo.jpg --output predictions

FLICKR8K holds `captions.txt` (lines `image,caption`) and the folder `images`; of the photographs in
their order the last tenth is for the test, the tenth before for validation. With the lists of the
authors give `--config.data.options.lists` (docs/data.md). The encoder is SqueezeNet 1.0, whose
weights stay as they are: compressed_SqueezeNet.net are its authors', of ImageNet, from
github.com/songhan/SqueezeNet-Deep-Compression. Variants: `nic`, `cnn_rnn`, `show_attend_tell` (the
default), `hard_attention`, `cnn_self_attention`, `cnn_transformer`; `vit_transformer` and
`vit_gpt2` start from a ViT of ImageNet, which is fetched. `:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import (
    CAPTIONERS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    caption_shapes,
    captioner_options,
    learn_captions,
)
from jaxvision.tasks import default_config

_MAP = {"encoder": "squeezenet1_0", "norm_features": True, "dropout": 0.5}
_RECURRENT = {**_MAP, "width": 128, "hidden": 256}
_ATTENTION = {**_RECURRENT, "attention_width": 128}
_TRANSFORMER = {"width": 128, "depth": 2, "num_heads": 4, "hidden": 256, "dropout": 0.3}
_VIT = {"encoder": "vit_small_patch16_224", **_TRANSFORMER, "max_tokens": 32}
OPTIONS = captioner_options(_RECURRENT, _ATTENTION, {**_MAP, **_TRANSFORMER}, _VIT)


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*CAPTIONERS, "smoke"))
    config = default_config("captioning")
    learn_captions(config)
    config.data.source, config.data.dir = "captions", "data/flickr8k"
    config.data.options = {"file": "captions.txt", "images": "images"}
    config.data.train, config.data.validation, config.data.test = (
        "train[:80%]",
        "train[80%:90%]",
        "train[90%:]",
    )
    config.data.cache = True
    config.data.min_count = 3
    network = variant if variant in CAPTIONERS else "show_attend_tell"
    config.model.name, config.model.options = network, OPTIONS[network]
    if network.startswith("vit"):
        config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
        config.model.encoder_weights = "default"
    else:  # pixels less the mean of ImageNet, as SqueezeNet's authors had them
        config.data.mean = (123 / 255, 117 / 255, 104 / 255)
        config.data.std = (1 / 255,)
    config.data.train_transforms = config.data.eval_transforms = (
        {"name": "resize", "size": 224 if network.startswith("vit") else 160},
    )
    config.data.augment = ({"name": "flip_horizontal"},)
    config.captioning.frozen_encoder = 1.0
    config.captioning.decoding = "beam"
    config.train.batch_size = 32
    config.train.duration = "30 epochs"
    config.eval.every = config.checkpoint.every = "3 epochs"
    if variant == "smoke":
        caption_shapes(config)
    return config
