"""What is compared when pixels are clustered: intensity, colour, position, texture.

Texture is oriented energy: responses of a pair of elongated Gaussian derivatives, one even and one
odd, at several angles and scales, as in Malik, Belongie, Leung and Shi, "Contour and Texture
Analysis for Image Segmentation", 2001, https://doi.org/10.1023/A:1011174803800. CIELAB is that of
`skimage.color.rgb2lab` (IEC 61966-2-1 sRGB, illuminant D65, 2° observer).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

from jaxvision.errors import UserError, unknown

FEATURES = ("intensity", "colour", "rgb", "position", "texture")

_LUMA = (0.2125, 0.7154, 0.0721)  # Rec. 709, as `skimage.color.rgb2gray`
_XYZ = np.array(
    [(0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227)]
)
_WHITE = np.array((0.95047, 1.0, 1.08883))  # D65
_ANGLES = 6
_SCALES = (1.0, 2.0)  # deviations across the filters, in pixels
_ELONGATION = 3.0


def features(
    image: UInt8[Array | np.ndarray, "h w 3"],
    which: Sequence[str] = ("colour",),
    weights: Mapping[str, float] | None = None,
    extra: Mapping[str, Float[Array | np.ndarray, "h w _"]] | None = None,
) -> Float[Array, "h w d"]:
    """Groups of features side by side, each centred and of total variance 1 times its weight².

    So weights say how much a group counts, whatever its units and number of channels. A group that
    is the same everywhere is 0.

    Args:
      image: RGB.
      which: groups: `intensity` (1 channel), `colour` (CIELAB, 3), `rgb` (3), `position` (2: row
        and column), `texture` (12: oriented energy), or names of `extra`.
      weights: of the groups; 1 where none is given.
      extra: further groups, such as maps of a network.

    Raises:
      UserError: no group, one twice or unknown, or a negative weight.
    """
    extra, weights = dict(extra or {}), dict(weights or {})
    makers: dict[str, Callable[[Array], Array]] = {
        "intensity": intensity,
        "colour": lab,
        "rgb": _unit,
        "position": lambda x: position(x.shape[0], x.shape[1]),
        "texture": lambda x: texture(intensity(x)[..., 0]),
    }
    if not which or len(set(which)) != len(which):
        raise UserError(f"Features {', '.join(which) or 'none'}: name at least one, each once.")
    for name in (*which, *weights):
        if name not in makers and name not in extra:
            raise unknown("feature", name, (*makers, *extra))
    for name, weight in weights.items():
        if not 0 <= weight < np.inf:
            raise UserError(f"The weight of {name} is {weight}; it must be at least 0.")
    groups = []
    for name in which:
        group = jnp.asarray(extra[name]) if name in extra else makers[name](jnp.asarray(image))
        groups.append(weights.get(name, 1.0) * _standardised(group))
    return jnp.concatenate(groups, -1)


def _standardised(group: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    centred = group - group.mean((0, 1))
    spread = jnp.sqrt(jnp.sum(jnp.mean(centred**2, (0, 1))))
    # What rounding alone makes of a constant is no difference.
    least = 1e-5 * jnp.maximum(jnp.abs(group).max(), 1)
    return jnp.where(spread > least, centred / jnp.where(spread > 0, spread, 1), 0)


def _unit(image: Array) -> Float[Array, "h w 3"]:
    """RGB from 0 to 1."""
    return image.astype(jnp.float32) / 255


def intensity(image: UInt8[Array | np.ndarray, "h w 3"]) -> Float[Array, "h w 1"]:
    """Luma from 0 to 1."""
    return jnp.sum(_unit(jnp.asarray(image)) * jnp.asarray(_LUMA), -1, keepdims=True)


@jax.jit
def lab(image: UInt8[Array | np.ndarray, "h w 3"]) -> Float[Array, "h w 3"]:
    """sRGB as CIELAB: lightness 0 to 100, then green to red and blue to yellow, about ±100."""
    rgb = _unit(jnp.asarray(image))
    linear = jnp.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix = jnp.asarray(_XYZ / _WHITE[:, None], jnp.float32)
    xyz = jnp.matmul(linear, matrix.T, precision=lax.Precision.HIGHEST)
    x, y, z = jnp.moveaxis(jnp.where(xyz > 0.008856, jnp.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def position(height: int, width: int) -> Float[Array, "h w 2"]:
    """Row and column of each pixel, in units of the longer side."""
    longer = max(height, width)
    rows, columns = jnp.arange(height) / longer, jnp.arange(width) / longer
    return jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), -1)


@jax.jit
def texture(image: Float[Array | np.ndarray, "h w"]) -> Float[Array, "h w 12"]:
    """Oriented energy, averaged over the filter's own surroundings.

    Channels run over the angles (of the edge, from 0 in steps of 30 degrees) of the finer scale,
    then of the coarser.
    """
    image, energies = jnp.asarray(image), []
    for scale in _SCALES:
        filters = jnp.asarray(oriented_filters(scale))
        margin = filters.shape[-1] // 2
        padded = jnp.pad(image, margin, mode="symmetric")[None, None]
        found = lax.conv_general_dilated(
            padded, filters[:, None], (1, 1), "VALID", precision=lax.Precision.HIGHEST
        )[0]
        energy = jnp.sqrt(jnp.sum(found.reshape(2, _ANGLES, *image.shape) ** 2, 0))
        energies.append(_blurred(energy, _ELONGATION * scale))
    return jnp.moveaxis(jnp.concatenate(energies), 0, -1)


def oriented_filters(scale: float) -> Float[np.ndarray, "f s s"]:
    """Second, then first derivatives of elongated Gaussians, of mean 0 and absolute sum 1."""
    reach = int(np.ceil(3 * _ELONGATION * scale))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    even, odd = [], []
    for angle in np.pi * np.arange(_ANGLES) / _ANGLES:
        along = x * np.cos(angle) + y * np.sin(angle)
        across = (y * np.cos(angle) - x * np.sin(angle)) / scale
        bell = np.exp(-(across**2) / 2 - (along / (_ELONGATION * scale)) ** 2 / 2)
        even.append((across**2 - 1) * bell)
        odd.append(across * bell)
    filters = np.stack(even + odd)
    filters -= filters.mean((1, 2), keepdims=True)
    return (filters / np.abs(filters).sum((1, 2), keepdims=True)).astype(np.float32)


@partial(jax.jit, static_argnums=1)
def _blurred(maps: Float[Array, "c h w"], sigma: float) -> Float[Array, "c h w"]:
    """Blurs maps by a Gaussian; they are mirrored at the border."""
    reach = int(np.ceil(3 * sigma))
    bell = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    line = jnp.asarray(bell / bell.sum(), jnp.float32)
    for axis in (1, 2):
        margin = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        length = maps.shape[axis]
        wide = jnp.pad(maps, margin, mode="symmetric")
        parts = (
            line[i] * lax.slice_in_dim(wide, i, i + length, axis=axis) for i in range(2 * reach + 1)
        )
        maps = sum(parts, jnp.zeros_like(maps))
    return maps


def principal(maps: Float[Array | np.ndarray, "h w c"], count: int) -> Float[Array, "h w d"]:
    """The first principal components of the channels, at most `count` (Pearson 1901)."""
    flat = jnp.asarray(maps).reshape(-1, maps.shape[-1])
    flat = flat - flat.mean(0)
    covariance = jnp.matmul(flat.T, flat, precision=lax.Precision.HIGHEST) / len(flat)
    axes = jnp.linalg.eigh(covariance)[1][:, ::-1][:, :count]
    found = jnp.matmul(flat, axes, precision=lax.Precision.HIGHEST)
    return found.reshape(*maps.shape[:2], -1)
