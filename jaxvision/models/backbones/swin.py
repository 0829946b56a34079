"""Swin Transformer: Liu et al., Hierarchical Vision Transformer using Shifted Windows, 2021.

https://arxiv.org/abs/2103.14030. Reference: `timm.models.swin_transformer.SwinTransformer`;
state_dicts of the authors, of torchvision's `swin_t` ... and of transformers are brought to its
names by `convert`.

Maps that do not divide into windows are padded, and windows are never larger than the map: so
images may have any size. The reference is made for one size, at which it does the same.
transformers and mmsegmentation, whose networks for segmentation stand on Swin, pad maps before they
shift them, and keep windows whole: `whole_windows`.
"""

import re
from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.blocks import DropPath, drop_path_rates
from jaxvision.layers.head import Head
from jaxvision.layers.images import pad_to_multiple
from jaxvision.layers.intermediates import asked, record
from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import LayerNorm
from jaxvision.layers.patches import as_map
from jaxvision.layers.positions import (
    Grid,
    offsets,
    relative_index,
    resize_relative_bias,
    stored_grid,
)
from jaxvision.layers.pyramid import doubled
from jaxvision.layers.transformer import Attention, Mlp, PatchEmbed
from jaxvision.models.transformers_names import from_transformers, is_transformers
from jaxvision.models.variant import Form, Variant
from jaxvision.ops.forms import computed_once
from jaxvision.state_dict import Shapes, StateDict, renamed

Map = Float[Array, "b h w c"]


def partition(x: Map, window: tuple[int, int]) -> Float[Array, "bn hw c"]:
    """The tokens of each window, windows row by row; the map divides into windows."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window[0], window[0], width // window[1], window[1], channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, window[0] * window[1], channels)


def merge(windows: Float[Array, "bn hw c"], window: tuple[int, int], size: tuple[int, int]) -> Map:
    """The inverse of `partition`, to a map of `size`."""
    rows, columns = size[0] // window[0], size[1] // window[1]
    x = windows.reshape(-1, rows, columns, *window, windows.shape[-1])
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, *size, windows.shape[-1])


def shift_mask(
    size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]
) -> Float[np.ndarray, "n hw hw"]:
    """0, and -100 between tokens that only the cyclic shift has brought into one window."""

    def regions(length: int, side: int, by: int) -> np.ndarray:
        place = np.arange(length)
        return (place >= length - side).astype(int) + (place >= length - by) * (by > 0)

    rows, columns = (regions(*axis) for axis in zip(size, window, shift))
    region = (3 * rows[:, None] + columns)[None, ..., None]
    region = np.asarray(region).reshape(
        size[0] // window[0], window[0], size[1] // window[1], window[1]
    )
    region = region.transpose(0, 2, 1, 3).reshape(-1, window[0] * window[1])
    return np.where(region[:, :, None] != region[:, None], -100.0, 0.0).astype(np.float32)


def _window(size: Grid, side: int) -> Grid:
    """Rows and columns of the windows of a map of this size, which they are not larger than."""
    return min(side, size[0]), min(side, size[1])


class SwinBlock(nn.Module):
    """Attention within windows, shifted by half a window in every other block, and an MLP.

    Attributes:
      window: side of a window in tokens.
      shifted: whether the windows are shifted.
      whole_windows, grid: see `SwinTransformer`; the grid is that of this map.
    """

    num_heads: int
    window: int = 7
    shifted: bool = False
    whole_windows: bool = False
    grid: Grid | None = None
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        norm = partial(LayerNorm, epsilon=1e-5, dtype=self.dtype)
        drop = DropPath(self.drop_path)
        attended = self.attend(norm(name="norm1")(x), train)
        x = computed_once(x + drop(attended, train))
        hidden = int(x.shape[-1] * self.mlp_ratio)
        mlp = Mlp(hidden, dropout=self.dropout, dtype=self.dtype, name="mlp")
        return computed_once(x + drop(mlp(norm(name="norm2")(x), train), train))

    def attend(self, x: Map, train: bool) -> Map:
        """Attention within the windows of a map, which is padded to divide into them."""
        size = (x.shape[1], x.shape[2])
        whole, half = self.whole_windows, self.window // 2 if self.shifted else 0
        window = (self.window, self.window) if whole else _window(size, self.window)
        # A window that spans the map has no neighbours to be shifted to.
        rows, columns = (half if whole or side > w else 0 for side, w in zip(size, window))
        shift = (rows, columns)
        padded = (size[0] + -size[0] % window[0], size[1] + -size[1] % window[1])

        def pad(x: Map) -> Map:
            edges = ((0, p - side) for p, side in zip(padded, size))
            return jnp.pad(x, ((0, 0), *edges, (0, 0)))

        def roll(x: Map, by: int) -> Map:
            return jnp.roll(x, (by * rows, by * columns), (1, 2))

        x = roll(pad(x), -1) if whole else pad(roll(x, -1))
        mask = None
        if any(shift):
            mask = jnp.asarray(shift_mask(padded, window, shift))[:, None]
        attention = Attention(
            self.num_heads,
            window=window,
            table_window=None if whole or self.grid is None else _window(self.grid, self.window),
            out_dropout=self.dropout,
            dtype=self.dtype,
            name="attn",
        )
        tokens = attention(partition(x, window), train, mask)
        x = merge(tokens, window, padded)
        return roll(x, 1)[:, : size[0], : size[1]] if whole else roll(x[:, : size[0], : size[1]], 1)


class PatchMerging(nn.Module):
    """Halves the map: 2x2 neighbours become one token of twice the channels."""

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Map) -> Map:
        batch, height, width, channels = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        x = x.reshape(batch, (height + 1) // 2, 2, (width + 1) // 2, 2, channels)
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, *x.shape[1:4:2], 4 * channels)
        x = LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)
        return Dense(2 * channels, use_bias=False, dtype=self.dtype, name="reduction")(x)


class SwinStage(nn.Module):
    """A merging, in all stages but the first, and blocks.

    Attributes:
      window: side of a window in patches.
      merge: whether there is a merging.
      whole_windows, grid: see `SwinBlock`.
      drop_path: the rate of each block.
      remat: recompute each block in the backward pass to save memory.
    """

    num_heads: int
    window: int
    merge: bool
    whole_windows: bool
    grid: Grid | None
    mlp_ratio: float
    dropout: float
    drop_path: Sequence[float]
    remat: bool
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        if self.merge:
            x = PatchMerging(dtype=self.dtype, name="downsample")(x)
        block = nn.remat(SwinBlock, static_argnums=(2,)) if self.remat else SwinBlock
        for index, rate in enumerate(self.drop_path):
            x = block(
                self.num_heads,
                self.window,
                index % 2 == 1,
                self.whole_windows,
                self.grid,
                self.mlp_ratio,
                self.dropout,
                rate,
                self.dtype,
                name=f"blocks_{index}",
            )(x, train)
        return x


def _stage_grid(grid: Grid, stage: int) -> Grid:
    """Rows and columns of the map of a stage, counted from 0, of so many patches."""
    return -(-grid[0] // 2**stage), -(-grid[1] // 2**stage)


class MeanHead(nn.Module):
    """The mean over the map, dropout and the linear layer `fc`."""

    num_classes: int
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Float[Array, "b k"]:
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean((1, 2)))
        return Head(self.num_classes, dtype=self.dtype, name="fc")(x)


class SwinTransformer(nn.Module):
    """Patches, four stages of blocks, a norm, the mean, a linear layer.

    Attributes:
      patch_size: side of a patch; the image is padded to a multiple of it.
      width: channels of the first stage; doubled by every merging.
      depths: blocks of the stages.
      num_heads: attention heads of the stages.
      window: side of a window in patches.
      whole_windows: whether maps are padded before they are shifted, and windows stay whole in maps
        that are smaller, as in transformers.
      grid: rows and columns of patches of the images that the tables of biases are made for, which
        tells the windows of maps smaller than a window; without it those of the image at
        initialisation, and where they must be resized, squares.
      drop_path: stochastic depth of the last block; earlier ones have linearly less.
      remat: recompute each block in the backward pass to save memory.
      features_only: return the maps of the stages, of strides 4, 8, 16 and 32.
    """

    num_classes: int = 1000
    patch_size: int = 4
    width: int = 96
    depths: Sequence[int] = (2, 2, 6, 2)
    num_heads: Sequence[int] = (3, 6, 12, 24)
    window: int = 7
    whole_windows: bool = False
    grid: Grid | None = None
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    drop_path: float = 0.1
    remat: bool = False
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        return doubled(len(self.depths), first=self.patch_size)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Map, ...]:
        if len(self.depths) != len(self.num_heads):
            raise UserError(f"{len(self.depths)} stages have {len(self.num_heads)} num_heads.")
        patch = self.patch_size
        image = pad_to_multiple(image, patch)
        embed = PatchEmbed(
            patch, self.width, norm_epsilon=1e-5, dtype=self.dtype, name="patch_embed"
        )
        x = as_map(embed(image), (image.shape[1] // patch, image.shape[2] // patch))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        rates, features = drop_path_rates(sum(self.depths), self.drop_path), []
        for stage, (depth, heads) in enumerate(zip(self.depths, self.num_heads)):
            before = sum(self.depths[:stage])
            x = SwinStage(
                heads,
                self.window,
                stage > 0,
                self.whole_windows,
                None if self.grid is None else _stage_grid(self.grid, stage),
                self.mlp_ratio,
                self.dropout,
                rates[before : before + depth],
                self.remat,
                self.dtype,
                name=f"layers_{stage}",
            )(x, train)
            features.append(x)
        if self.features_only:
            return tuple(features)
        x = LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)
        if asked(self, "tokens"):
            record(self, "tokens", x.reshape(x.shape[0], -1, x.shape[-1]))
        return MeanHead(self.num_classes, self.dropout, self.dtype, name="head")(x, train)


_TORCHVISION = (
    (r"^features\.0\.0\.", "patch_embed.proj."),
    (r"^features\.0\.2\.", "patch_embed.norm."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
    (r"^head\.", "head.fc."),
)


def _from_torchvision(name: str) -> str:
    """Its `features` alternate: 1, 3, 5, 7 are the stages, 2, 4, 6 the mergings between."""

    def stage(match: re.Match) -> str:
        index, rest = int(match[1]), match[2]
        if index % 2:
            return f"layers.{index // 2}.blocks.{rest}"
        return f"layers.{index // 2}.downsample.{rest}"

    return re.sub(r"^features\.(\d+)\.(.*)$", stage, name)


def convert(state: StateDict) -> StateDict:
    """State_dicts of the authors and the other libraries by timm's names; others unchanged."""
    if is_transformers(state):
        return renamed(from_transformers(state), [(r"^head\.", "head.fc.")])
    state = {
        name: value
        for name, value in state.items()
        if not name.endswith(("relative_position_index", "attn_mask"))
    }
    if "features.0.0.weight" in state:
        return {_from_torchvision(n): value for n, value in renamed(state, _TORCHVISION).items()}
    if "layers.0.downsample.reduction.weight" in state:
        # The authors merge at the end of a stage, timm at the start of the next.
        later = [(rf"^layers\.{i}\.downsample", f"layers.{i + 1}.downsample") for i in (2, 1, 0)]
        return renamed(state, [*later, (r"^head\.", "head.fc.")])
    return state


_TO_TORCHVISION = (
    (r"^patch_embed\.proj\.", "features.0.0."),
    (r"^patch_embed\.norm\.", "features.0.2."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"^head\.fc\.", "head."),
)


def to_torchvision(state: StateDict) -> StateDict:
    """A state_dict of ours by torchvision's names, with the indices that it stores."""

    def numbered(match: re.Match) -> str:
        return f"features.{2 * int(match[1]) + (match[2] == 'blocks')}."

    found = {
        re.sub(r"^layers\.(\d)\.(blocks|downsample)\.", numbered, name): value
        for name, value in renamed(state, _TO_TORCHVISION).items()
    }
    for name in [n for n in found if n.endswith(".relative_position_bias_table")]:
        window = stored_grid(len(found[name]), count=offsets)
        index = relative_index(window).reshape(-1)
        found[name.removesuffix("bias_table") + "index"] = index.astype(np.int64)
    return found


def resize(state: StateDict, shapes: Shapes, grid: Grid | None) -> StateDict:
    """A state_dict whose tables of relative biases fit the wanted windows.

    Raises:
      UserError: tables of windows that are not known; see `stored_grid`.
    """
    resized = {}
    for name, value in state.items():
        wanted = shapes.get(name)
        found = re.search(r"layers\.(\d+)\..*\.relative_position_bias_table$", name)
        if found and wanted and wanted != value.shape:
            window = None
            if grid is not None:  # as large as the table says, or as the map allows
                size = _stage_grid(grid, int(found[1]))
                cut = (_window(size, side) for side in range(1, max(size) + 1))
                window = next((w for w in cut if offsets(w) >= wanted[0]), size)
            new = stored_grid(wanted[0], declared=window, count=offsets)
            resized[name] = np.asarray(resize_relative_bias(jnp.asarray(value), new))
    return state | resized


_IN_TORCHVISION = {
    f"swin_{size}_patch4_window7_224": f"swin_{size[0]}" for size in ("tiny", "small", "base")
}


def _swin(name: str, width: int, depths: Sequence[int], heads: int, window: int, side: int):
    options = {
        "width": width,
        "depths": depths,
        "num_heads": tuple(heads * 2**stage for stage in range(4)),
        "window": window,
    }
    theirs = _IN_TORCHVISION.get(name)
    return Variant(
        SwinTransformer,
        options,
        f"timm {name}",
        (side, side, 3),
        "Liu et al. 2021, https://arxiv.org/abs/2103.14030",
        classifier=("head.fc",),
        first="patch_embed.proj",
        convert=convert,
        resize=resize,
        forms=(Form("torchvision", theirs, to_torchvision),) if theirs else (),
    )


VARIANTS = {
    name: _swin(name, *shape)
    for name, shape in {
        "swin_tiny_patch4_window7_224": (96, (2, 2, 6, 2), 3, 7, 224),
        "swin_small_patch4_window7_224": (96, (2, 2, 18, 2), 3, 7, 224),
        "swin_base_patch4_window7_224": (128, (2, 2, 18, 2), 4, 7, 224),
        "swin_base_patch4_window12_384": (128, (2, 2, 18, 2), 4, 12, 384),
        "swin_large_patch4_window7_224": (192, (2, 2, 18, 2), 6, 7, 224),
        "swin_large_patch4_window12_384": (192, (2, 2, 18, 2), 6, 12, 384),
    }.items()
}
