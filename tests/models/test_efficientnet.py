"""EfficientNet beyond its references: torchvision's names."""

import numpy as np

from jaxvision import models

# A part of each kind, as torchvision and timm name it.
NAMES = {
    "features.0.0.weight": "conv_stem.weight",
    "features.0.1.running_mean": "bn1.running_mean",
    "features.1.0.block.0.0.weight": "blocks.0.0.conv_dw.weight",
    "features.1.0.block.0.1.bias": "blocks.0.0.bn1.bias",
    "features.1.0.block.1.fc1.weight": "blocks.0.0.se.conv_reduce.weight",
    "features.1.0.block.2.0.weight": "blocks.0.0.conv_pw.weight",
    "features.1.0.block.2.1.weight": "blocks.0.0.bn2.weight",
    "features.2.1.block.0.0.weight": "blocks.1.1.conv_pw.weight",
    "features.2.1.block.0.1.weight": "blocks.1.1.bn1.weight",
    "features.2.1.block.1.0.weight": "blocks.1.1.conv_dw.weight",
    "features.2.1.block.1.1.weight": "blocks.1.1.bn2.weight",
    "features.7.0.block.2.fc2.bias": "blocks.6.0.se.conv_expand.bias",
    "features.7.0.block.3.0.weight": "blocks.6.0.conv_pwl.weight",
    "features.7.0.block.3.1.running_var": "blocks.6.0.bn3.running_var",
    "features.8.0.weight": "conv_head.weight",
    "features.8.1.weight": "bn2.weight",
    "classifier.1.weight": "classifier.weight",
}


def test_torchvisions_names():
    convert = models.variant("efficientnet_b0").convert
    state = {name: np.float32(index) for index, name in enumerate(NAMES)}
    expected = {ours: state[theirs] for theirs, ours in NAMES.items()}
    assert convert(state) == expected
    assert convert(expected) == expected
