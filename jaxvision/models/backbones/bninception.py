"""Inception v2: Ioffe and Szegedy, Batch Normalization, 2015.

https://arxiv.org/abs/1502.03167. Reference: `pytorchcv` `bninception`, which like Caffe's has
biases in its convolutions. Strided convolutions and poolings beside each other make maps of one
size only where the maps before them have even sides, as in images of multiples of 32.
"""

from functools import partial

from jaxvision.layers.inception import Block, Branch, Conv, Layer
from jaxvision.models.backbones.inception import Architecture, Inception, pool_max, pool_mean
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import max_pool2d
from jaxvision.state_dict import renamed

# Figure 5 of the paper: 1x1, 3x3 reduced, 3x3, double 3x3 reduced, double 3x3, projection after
# pooling. Blocks without a 1x1 halve the map, and pool without a projection.
_BLOCKS = {
    "stage1_unit1": (64, 64, 64, 64, 96, 32),
    "stage1_unit2": (64, 64, 96, 64, 96, 64),
    "stage2_unit1": (0, 128, 160, 64, 96, 0),
    "stage2_unit2": (224, 64, 96, 96, 128, 128),
    "stage2_unit3": (192, 96, 128, 96, 128, 128),
    "stage2_unit4": (160, 128, 160, 128, 160, 128),
    "stage2_unit5": (96, 128, 192, 160, 192, 128),
    "stage3_unit1": (0, 128, 192, 192, 256, 0),
    "stage3_unit2": (352, 192, 320, 160, 224, 128),
    "stage3_unit3": (352, 192, 320, 192, 224, 128),
}


def _layers() -> list[Layer]:
    pool = partial(pool_max, ceil_mode=True)
    layers: list[Layer] = [Conv("conv1", 64, 7, 2), "features", pool]
    layers += [Conv("conv2_conv1", 64), Conv("conv2_conv2", 192, 3), "features", pool]
    for name, (one, reduced, three, double_reduced, double, projection) in _BLOCKS.items():
        stride, at = (1, 2) if one else (2, 1)
        branches: list[Branch] = [
            (Conv(f"branch{at}_conv1", reduced), Conv(f"branch{at}_conv2", three, 3, stride)),
            (
                Conv(f"branch{at + 1}_conv1", double_reduced),
                Conv(f"branch{at + 1}_conv2", double, 3),
                Conv(f"branch{at + 1}_conv3", double, 3, stride),
            ),
        ]
        if one:
            last = name == "stage3_unit3"
            same = partial(max_pool2d, window=3, stride=1, padding=1) if last else pool_mean
            branches = [
                (Conv("branch1", one),),
                *branches,
                (same, Conv("branch4_conv", projection)),
            ]
        else:
            branches.append((pool,))
            layers.append("features")
        layers.append(Block(name, tuple(branches)))
    return [*layers, "features"]


_FROM_PYTORCHCV = (
    (r"^features\.init_block\.conv1\.", "conv1."),
    (r"^features\.init_block\.conv2\.", "conv2_"),
    (r"^features\.(stage\d)\.(unit\d)\.branches\.", r"\1_\2."),
    (r"(branch\d)\.(conv\d?)\.(?=conv|bn)", r"\1_\2."),
)
_TO_PYTORCHCV = (
    (r"(branch\d)_(conv\d?)\.", r"\1.\2."),
    (r"^(stage\d)_(unit\d)\.", r"features.\1.\2.branches."),
    (r"^conv1\.", "features.init_block.conv1."),
    (r"^conv2_", "features.init_block.conv2."),
)

VARIANTS = {
    "bninception": Variant(
        Inception,
        {"architecture": Architecture(_layers, "output", 31, step=32, use_bias=True, epsilon=1e-5)},
        "pytorchcv bninception",
        paper="Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167",
        classifier=("output",),
        first="conv1.conv",
        convert=partial(renamed, patterns=_FROM_PYTORCHCV),
        export=partial(renamed, patterns=_TO_PYTORCHCV),
    )
}
