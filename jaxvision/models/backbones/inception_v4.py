"""Inception v4 and Inception-ResNet.

Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning,
2016, https://arxiv.org/abs/1602.07261. References: `timm` `inception_v4` and `inception_resnet_v2`,
whose stem is Inception v3's and whose residuals are scaled by 0.17, 0.1 and 0.2 (the last by 1).
"""

import re
from functools import partial

from jaxvision.layers.inception import Block, Branch, Conv, Fork, Layer
from jaxvision.models.backbones.inception import Architecture, Inception, pool_max
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import avg_pool2d
from jaxvision.state_dict import StateDict, renamed

_mean = partial(avg_pool2d, window=3, stride=1, padding=1, count_include_pad=False)
_ROW, _COLUMN = (1, 7), (7, 1)


def _branch(number: int, *shapes: tuple, after: tuple = ()) -> Branch:
    """A `Sequential` of the reference: poolings, then convolutions of (features, kernel, ...)."""
    convs = enumerate(shapes, start=len(after))
    return (*after, *(Conv(f"branch{number}_{i}", *shape) for i, shape in convs))


def _v4(a: int, b: int, c: int) -> list[Layer]:
    down = (3, 2, 0)  # a 3x3 kernel, stride 2, no padding
    stem = (
        *(Conv("features_0", 32, *down), Conv("features_1", 32, 3, 1, 0)),
        *(Conv("features_2", 64, 3), "features"),
        *(Block("features_3", ((pool_max,), (Conv("conv", 96, *down),))), "features"),
        Block(
            "features_4",
            (
                _branch(0, (64,), (96, 3, 1, 0)),
                _branch(1, (64,), (64, _ROW), (64, _COLUMN), (96, 3, 1, 0)),
            ),
        ),
        Block("features_5", ((Conv("conv", 192, *down),), (pool_max,))),
    )
    mixed_a = (
        (Conv("branch0", 96),),
        _branch(1, (64,), (96, 3)),
        _branch(2, (64,), (96, 3), (96, 3)),
        _branch(3, (96,), after=(_mean,)),
    )
    reduction_a = (
        (Conv("branch0", 384, *down),),
        _branch(1, (192,), (224, 3), (256, *down)),
        (pool_max,),
    )
    mixed_b = (
        (Conv("branch0", 384),),
        _branch(1, (192,), (224, _ROW), (256, _COLUMN)),
        _branch(2, (192,), (192, _COLUMN), (224, _ROW), (224, _COLUMN), (256, _ROW)),
        _branch(3, (128,), after=(_mean,)),
    )
    reduction_b = (
        _branch(0, (192,), (192, *down)),
        _branch(1, (256,), (256, _ROW), (320, _COLUMN), (320, *down)),
        (pool_max,),
    )
    mixed_c = (
        (Conv("branch0", 256),),
        (*_branch(1, (384,)), _fork("branch1_1")),
        (*_branch(2, (384,), (448, (3, 1)), (512, (1, 3))), _fork("branch2_3")),
        _branch(3, (256,), after=(_mean,)),
    )
    layers: list[Layer] = [*stem]
    index = len(layers) - 2  # the marks are no layers
    for branches in (*[mixed_a] * a, reduction_a, *[mixed_b] * b, reduction_b, *[mixed_c] * c):
        if branches in (reduction_a, reduction_b):
            layers.append("features")
        layers.append(Block(f"features_{index}", branches))
        index += 1
    return [*layers, "features"]


def _fork(name: str) -> Fork:
    return Fork((Conv(f"{name}a", 256, (1, 3)), Conv(f"{name}b", 256, (3, 1))))


def _resnet_v2(a: int, b: int, c: int) -> list[Layer]:
    down = (3, 2, 0)
    first = (
        (Conv("branch0", 96),),
        _branch(1, (48,), (64, 5)),
        _branch(2, (64,), (96, 3), (96, 3)),
        _branch(3, (64,), after=(_mean,)),
    )
    blocks_a = (
        (Conv("branch0", 32),),
        _branch(1, (32,), (32, 3)),
        _branch(2, (32,), (48, 3), (64, 3)),
    )
    reduction_a = (
        (Conv("branch0", 384, *down),),
        _branch(1, (256,), (256, 3), (384, *down)),
        (pool_max,),
    )
    blocks_b = ((Conv("branch0", 192),), _branch(1, (128,), (160, _ROW), (192, _COLUMN)))
    reduction_b = (
        _branch(0, (256,), (384, *down)),
        _branch(1, (256,), (288, *down)),
        _branch(2, (256,), (288, 3), (320, *down)),
        (pool_max,),
    )
    blocks_c = ((Conv("branch0", 192),), _branch(1, (192,), (224, (1, 3)), (256, (3, 1))))
    return [
        *(Conv("conv2d_1a", 32, *down), Conv("conv2d_2a", 32, 3, 1, 0)),
        *(Conv("conv2d_2b", 64, 3), "features", pool_max),
        *(Conv("conv2d_3b", 80), Conv("conv2d_4a", 192, 3, 1, 0), "features", pool_max),
        *(Block("mixed_5b", first), *(Block(f"repeat_{i}", blocks_a, 0.17) for i in range(a))),
        "features",
        *(
            Block("mixed_6a", reduction_a),
            *(Block(f"repeat1_{i}", blocks_b, 0.1) for i in range(b)),
        ),
        "features",
        *(
            Block("mixed_7a", reduction_b),
            *(Block(f"repeat2_{i}", blocks_c, 0.2) for i in range(c)),
        ),
        *(Block("block8", blocks_c, 1.0, act=False), Conv("conv2d_7b", 1536), "features"),
    ]


# By our naming rule a trailing number of a module is an index. In the last blocks of v4 `branch1_0`
# is not, but in its other blocks it is; so is the one of `repeat_1.0`, of which the 1 is none.
def _to_timm_v4(state: StateDict) -> StateDict:
    forked = {name.split(".branch1_1a")[0] for name in state if ".branch1_1a" in name}
    blocks = "|".join(map(re.escape, sorted(forked))) or "$"
    return renamed(state, [(rf"^({blocks})\.(branch[12])\.(\d)\.", r"\1.\2_\3.")])


def _variant(name: str, depths: tuple[int, ...], architecture: Architecture, **more) -> Variant:
    return Variant(
        Inception,
        {"architecture": architecture, "depths": depths},
        f"timm {name}",
        (299, 299, 3),
        "Szegedy et al. 2016, https://arxiv.org/abs/1602.07261",
        classifier=(architecture.head,),
        **more,
    )


VARIANTS = {
    "inception_v4": _variant(
        "inception_v4",
        (4, 7, 3),
        Architecture(_v4, "last_linear", 75),
        first="features.0.conv",
        convert=partial(renamed, patterns=[(r"\.(branch[12])_(\d)\.", r".\1.\2.")]),
        export=_to_timm_v4,
    ),
    "inception_resnet_v2": _variant(
        "inception_resnet_v2",
        (10, 20, 9),
        Architecture(_resnet_v2, "classif", 75),
        first="conv2d_1a.conv",
        convert=partial(renamed, patterns=[(r"^repeat_([12])\.", r"repeat\1.")]),
        export=partial(renamed, patterns=[(r"^repeat([12])\.", r"repeat_\1.")]),
    ),
}
