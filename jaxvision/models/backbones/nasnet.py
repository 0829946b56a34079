"""NASNet-A: Zoph et al., Learning Transferable Architectures for Scalable Image Recognition, 2018.

https://arxiv.org/abs/1707.07012. Its cells were found by a search on CIFAR-10; the search is not
here. References: `timm` `nasnetalarge` (6 @ 4032) and `pytorchcv` `nasnet_4a1056` (4 @ 1056, the
mobile one). Padding is TensorFlow's "SAME", which pytorchcv's is for the even maps that it takes.
timm's strided mean counts the padding and its first cell after a reduction looks past the
reduction's input; pytorchcv's do not. The paper's scheduled drop path and auxiliary head, of which
the references have none, are left out.
"""

import re
from collections.abc import Iterable
from functools import partial
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.conv_norm import ConvNormAct
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head
from jaxvision.layers.images import check_size
from jaxvision.layers.normalization import BatchNorm
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import avg_pool2d, global_average_pool, max_pool2d
from jaxvision.state_dict import StateDict, renamed

_SMALLEST = 3
_EPSILON = 1e-3


def _same(x: Array, kernel: int, stride: int) -> tuple[tuple[int, int], ...]:
    """TensorFlow's padding: what is odd of it goes to the bottom and the right."""
    totals = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[1:3])
    return tuple((total // 2, total - total // 2) for total in totals)


class SeparableBranch(nn.Module):
    """Twice ReLU, a depthwise convolution, a 1x1 one and batch norm; the first may be strided."""

    features: int
    kernel_size: int
    stride: int = 1
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        for index, stride in ((1, self.stride), (2, 1)):
            conv = SeparableConv(
                self.features, self.kernel_size, stride, self.dtype, name=f"separable{index}"
            )
            norm = BatchNorm(epsilon=_EPSILON, dtype=self.dtype, name=f"bn_sep{index}")
            x = norm(conv(nn.relu(x)), train)
        return x


class SeparableConv(nn.Module):
    """A depthwise convolution, then a 1x1 one."""

    features: int
    kernel_size: int
    stride: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        conv = partial(Conv2d, use_bias=False, dtype=self.dtype)
        x = conv(
            x.shape[-1],
            self.kernel_size,
            self.stride,
            _same(x, self.kernel_size, self.stride),
            groups=x.shape[-1],
            name="depthwise_conv2d",
        )(x)
        return conv(self.features, 1, name="pointwise_conv2d")(x)


class Cell(nn.Module):
    """Figure 4 of the paper: five sums of two branches of this map and the previous one.

    Attributes:
      features: channels of a branch.
      reduction: whether the map is halved.
      previous: how the previous map is brought to this one's shape: "conv" by a 1x1 convolution,
        "path" by two strided ones of pixels one apart, "none" not at all.
      count_padding: whether the padding of a strided mean is part of it.
    """

    features: int
    reduction: bool = False
    previous: str = "conv"
    count_padding: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], previous: Float[Array, "b hp wp cp"], train: bool
    ) -> Float[Array, "b i j d"]:
        conv = partial(ConvNormAct, epsilon=_EPSILON, act=None, dtype=self.dtype)
        this = conv(self.features, name="conv_1x1")(nn.relu(x), train)
        if self.previous == "conv":
            previous = conv(self.features, name="conv_prev_1x1")(nn.relu(previous), train)
        elif self.previous == "path":
            previous = self._paths(nn.relu(previous), train)

        def separable(name: str, kernel: int, x: Array, stride: int = 1) -> Array:
            branch = SeparableBranch(
                self.features, kernel, stride, self.dtype, name=f"comb_iter_{name}"
            )
            return branch(x, train)

        mean = partial(avg_pool2d, window=3, stride=1, padding=1, count_include_pad=False)
        if not self.reduction:
            outputs = (
                previous,
                separable("0_left", 5, this) + separable("0_right", 3, previous),
                separable("1_left", 5, previous) + separable("1_right", 3, previous),
                mean(this) + previous,
                2 * mean(previous),
                separable("4_left", 3, this) + this,
            )
            return jnp.concatenate(outputs, -1)
        # For a 3x3 window of stride 2 this is "SAME".
        largest = max_pool2d(this, 3, 2, (this.shape[1] % 2, this.shape[2] % 2), ceil_mode=True)
        first = separable("0_left", 5, this, 2) + separable("0_right", 7, previous, 2)
        second = largest + separable("1_right", 7, previous, 2)
        sums = (
            second,
            self._strided_mean(this) + separable("2_right", 5, previous, 2),
            mean(first) + second,
            separable("4_left", 3, first) + largest,
        )
        return jnp.concatenate(sums, -1)

    def _paths(self, x: Array, train: bool) -> Array:
        conv = partial(Conv2d, self.features // 2, 1, use_bias=False, dtype=self.dtype)
        shifted = jnp.pad(x[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))
        paths = [
            conv(name=f"path{i}")(pixels[:, ::2, ::2]) for i, pixels in enumerate((x, shifted), 1)
        ]
        norm = BatchNorm(epsilon=_EPSILON, dtype=self.dtype, name="final_path_bn")
        return norm(jnp.concatenate(paths, -1), train)

    def _strided_mean(self, x: Array) -> Array:
        if self.count_padding:
            return avg_pool2d(jnp.pad(x, ((0, 0), *_same(x, 3, 2), (0, 0))), 3, 2)
        odd = (x.shape[1] % 2, x.shape[2] % 2)
        return avg_pool2d(x, 3, 2, odd, ceil_mode=True, count_include_pad=False)


class NASNet(nn.Module):
    """A strided convolution, two reductions, three stages of cells with reductions between.

    Attributes:
      cells: normal cells of a stage.
      width: channels of the last map.
      stem: channels of the first convolution.
      skip_reduction: whether the cell after a reduction is given the map before the reduction's
        input as the previous one, not that input.
      count_padding: see `Cell`.
      remat: recompute each cell in the backward pass to save memory.
      features_only: return the maps of strides 2, 4, 8, 16 and 32, all but the first after a ReLU.
    """

    feature_strides: ClassVar[tuple[int, ...]] = (2, 4, 8, 16, 32)

    num_classes: int = 1000
    cells: int = 6
    width: int = 4032
    stem: int = 96
    skip_reduction: bool = True
    count_padding: bool = True
    dropout: float = 0.0
    remat: bool = False
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        check_size(image, _SMALLEST, "NASNet")
        block = nn.remat(Cell, static_argnums=(3,)) if self.remat else Cell
        cell = partial(block, count_padding=self.count_padding, dtype=self.dtype)
        width = self.width // 24  # the last cells' six branches have four times as many
        conv = partial(ConvNormAct, epsilon=_EPSILON, act=None, dtype=self.dtype)
        x = conv(self.stem, 3, 2, 0, name="conv0")(image, train)
        features = [x]
        previous, x = x, cell(width // 4, True, "none", name="cell_stem0")(x, x, train)
        features.append(nn.relu(x))
        previous, x = x, cell(width // 2, True, "path", name="cell_stem1")(x, previous, train)
        for stage in range(3):
            channels = width * 2**stage
            if stage:
                features.append(nn.relu(x))
                reduce = cell(channels, True, name=f"reduction_cell{stage - 1}")
                reduced = reduce(x, previous, train)
                previous, x = (previous if self.skip_reduction else x), reduced
            for index in range(self.cells):
                name = f"cell{stage * self.cells + index}"
                kind = "conv" if index else "path"
                previous, x = x, cell(channels, False, kind, name=name)(x, previous, train)
        x = nn.relu(x)
        if self.features_only:
            return (*features, x)
        x = nn.Dropout(self.dropout, deterministic=not train)(global_average_pool(x))
        return Head(self.num_classes, dtype=self.dtype, name="last_linear")(x)


# A trailing number of a module is an index by our naming rule, and is none in timm's names.
_FROM_TIMM = (
    (r"(separable|bn_sep|cell|stem)_(\d+)\.", r"\1\2."),
    (r"path_(\d)\.conv\.", r"path\1."),
)
_TO_TIMM = (
    (r"(separable|bn_sep|cell|stem)(\d+)\.", r"\1_\2."),
    (r"path(\d)\.", r"path_\1.conv."),
)

# (pytorchcv's name, ours); cells are counted through by ours, stage by stage by pytorchcv's.
_PYTORCHCV = (
    ("features.init_block.", "conv0."),
    ("features.stem1_unit.", "cell_stem0."),
    ("features.stem2_unit.", "cell_stem1."),
    ("features.stage2.unit1.", "reduction_cell0."),
    ("features.stage3.unit1.", "reduction_cell1."),
    (".conv1x1_prev.", ".conv_prev_1x1."),
    (".conv1x1.", ".conv_1x1."),
    (".path.path1.conv.", ".path1."),
    (".path.path2.conv.", ".path2."),
    (".path.bn.", ".final_path_bn."),
    *((f".conv{i}.conv.dw_conv.", f".separable{i}.depthwise_conv2d.") for i in (1, 2)),
    *((f".conv{i}.conv.pw_conv.", f".separable{i}.pointwise_conv2d.") for i in (1, 2)),
    *((f"_left.conv{i}.bn.", f"_left.bn_sep{i}.") for i in (1, 2)),
    *((f"_right.conv{i}.bn.", f"_right.bn_sep{i}.") for i in (1, 2)),
    *((f".comb{i}_", f".comb_iter_{i}_") for i in range(5)),
    ("output.fc.", "last_linear."),
)


def _cells(count: int) -> list[tuple[str, str]]:
    """(pytorchcv's name, ours) of the normal cells; stages 2 and 3 begin with the reduction."""
    places = [(stage, unit) for stage in (1, 2, 3) for unit in range(count)]
    return [
        (f"features.stage{stage}.unit{unit + (1 if stage == 1 else 2)}.", f"cell{index}.")
        for index, (stage, unit) in enumerate(places)
    ]


def _patterns(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(("" if old[0] in "._" else "^") + re.escape(old), new) for old, new in pairs]


def _from_pytorchcv(state: StateDict) -> StateDict:
    count = len({name.split(".")[2] for name in state if name.startswith("features.stage1.")})
    return renamed(state, _patterns([*_PYTORCHCV, *_cells(count)]))


def _to_pytorchcv(state: StateDict) -> StateDict:
    count = len({match[0] for name in state if (match := re.match(r"cell\d+\.", name))}) // 3
    pairs = [*_PYTORCHCV, *_cells(count)]
    return renamed(state, _patterns((ours, theirs) for theirs, ours in pairs))


_PAPER = "Zoph et al. 2018, https://arxiv.org/abs/1707.07012"
VARIANTS = {
    "nasnetalarge": Variant(
        NASNet,
        {},
        "timm nasnetalarge",
        (331, 331, 3),
        _PAPER,
        classifier=("last_linear",),
        first="conv0.conv",
        convert=partial(renamed, patterns=_FROM_TIMM),
        export=partial(renamed, patterns=_TO_TIMM),
    ),
    "nasnet_4a1056": Variant(
        NASNet,
        {
            "cells": 4,
            "width": 1056,
            "stem": 32,
            "skip_reduction": False,
            "count_padding": False,
            "dropout": 0.5,
        },
        "pytorchcv nasnet_4a1056",
        paper=_PAPER,
        classifier=("last_linear",),
        first="conv0.conv",
        convert=_from_pytorchcv,
        export=_to_pytorchcv,
    ),
}
