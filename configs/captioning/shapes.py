"""Captions of the built-in `shapes`: one recipe, one budget, a network a variant.

    python train.py --config configs/captioning/shapes.py:show_attend_tell --workdir runs/captions
    jaxvision predict --workdir runs/captions photo.jpg --output predictions

56,000 scenes of 64 pixels, each with a sentence as "A large orange ring in the middle, with a small
blue star to its left."; 500 for the test. Variants are `nic`, `cnn_rnn`, `show_attend_tell` (the
default), `hard_attention`, `cnn_self_attention`, `cnn_transformer`, `vit_transformer` and
`vit_gpt2`, reduced so that two CPU cores train them in 20 minutes: a ResNet-18 up to stride 8, or a
ViT of 128 channels on patches of 8, which learns soonest from fixed positions and Glorot's weights,
and decoders of 128 to 256 channels. docs/captioning.md says what they reach. Scenes are not
mirrored: sentences know left from right.

`:self_critical` goes on from a trained `show_attend_tell` with CIDEr-D as the reward:

    python train.py --config configs/captioning/shapes.py:self_critical \\
        --config.model.weights=run:runs/captions --workdir runs/self_critical

`:smoke` trains a small network for a few steps.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import CAPTIONERS, caption_shapes, captioner_options, learn_captions
from jaxvision.tasks import default_config

_MAP = {"encoder": "resnet18", "encoder_options": {"depths": (2, 2, 2), "output_stride": 8}}
_RECURRENT = {**_MAP, "width": 128, "hidden": 256}
_ATTENTION = {**_RECURRENT, "attention_width": 128, "dropout": 0.1}
_TRANSFORMER = {"width": 128, "depth": 3, "num_heads": 4, "hidden": 256}
_VIT = {
    "encoder": "vit_small_patch16_224",
    "encoder_options": {
        "patch_size": 8,
        "width": 128,
        "depth": 6,
        "num_heads": 4,
        "positions": "sincos",
        "kernel_init": "xavier",
    },
    **_TRANSFORMER,
    "max_tokens": 48,
}
OPTIONS = captioner_options(_RECURRENT, _ATTENTION, {**_MAP, **_TRANSFORMER}, _VIT)
EPOCHS = {"vit_transformer": 6, "vit_gpt2": 6}  # of the others 3


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*CAPTIONERS, "self_critical", "smoke"))
    config = default_config("captioning")
    learn_captions(config)
    config.data.name = "shapes"
    config.data.options = {"size": 64, "train": 56_000, "test": 500}
    config.data.cache = True
    config.data.max_captions, config.data.max_tokens = 1, 40
    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.25, 0.25, 0.25)
    config.data.augment = (
        {"name": "random_color_jitter", "brightness": 0.1, "contrast": 0.1, "saturation": 0.1},
    )
    network = variant if variant in CAPTIONERS else "show_attend_tell"
    config.model.name, config.model.options = network, OPTIONS[network]
    config.data.eval_transforms = ({"name": "resize", "size": 64},)  # for other photographs
    config.train.batch_size = 32
    config.train.duration = f"{EPOCHS.get(network, 3)} epochs"
    config.eval.every = config.checkpoint.every = "1 epoch"
    if variant == "self_critical":
        config.captioning.self_critical = config.data.caption_frequencies = True
        config.captioning.label_smoothing = 0.0
        config.optimizer.learning_rate = 5e-5
        config.optimizer.freeze_statistics = ("encoder",)
        config.train.duration = "1 epoch"
    if variant == "smoke":
        caption_shapes(config)
    return config
