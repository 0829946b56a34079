"""Selective search: boxes that may hold an object, from regions that grow together.

Uijlings et al., "Selective Search for Object Recognition", 2013,
https://doi.org/10.1007/s11263-013-0620-5. Small regions, found by Felzenszwalb and Huttenlocher,
"Efficient Graph-Based Image Segmentation", 2004, https://doi.org/10.1023/B:VISI.0000022288.19776.77,
are merged two at a time, the most similar neighbours first, until the image is one region. Every
region on the way is a proposal. Several colour spaces, sizes of the first regions and similarities
are searched, and their hierarchies mixed by a ranking that is partly random.

All of it runs on the host: the graph has another shape in every image.
"""

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Int, UInt8
from skimage.feature import local_binary_pattern
from skimage.segmentation import felzenszwalb
from skimage.util import img_as_float

from jaxvision.errors import UserError, unknown

COLOURS = ("hsv", "lab", "rgi", "hue", "intensity", "rgb", "normalized_rgb", "c")
SIMILARITIES = "CTSF"  # of colour, texture, size, and how well two regions fill their box
MODES = ("fast", "quality", "single")

_COLOUR_BINS, _TEXTURE_BINS, _ORIENTATIONS = 25, 10, 8
_TEXTURES = 3 * _COLOUR_BINS  # where textures begin in a histogram
_BINS = _TEXTURES + 3 * _ORIENTATIONS * _TEXTURE_BINS


class Strategy(NamedTuple):
    """How one hierarchy is made.

    Attributes:
      colour: space in which pixels are compared, one of `COLOURS`.
      scale: Felzenszwalb and Huttenlocher's k for values up to 255, and the fewest pixels of a
        first region, as in the authors' code.
      similarity: letters of `SIMILARITIES`.
    """

    colour: str
    scale: float
    similarity: str


def _every(
    colours: Sequence[str], scales: Sequence[int], similarities: Sequence[str]
) -> tuple[Strategy, ...]:
    return tuple(Strategy(c, k, s) for c in colours for k in scales for s in similarities)


# Table 8 of the paper, and its "quality".
FAST = _every(COLOURS[:2], (50, 100), ("CTSF", "TSF"))
QUALITY = _every(COLOURS[:5], (50, 100, 150, 300), ("CTSF", "TSF", "F", "S"))


class Hierarchy(NamedTuple):
    """Regions that grow together: those of the segmentation first, then what pairs become.

    Attributes:
      segments: which of the first regions each pixel is in.
      boxes: (x0, y0, x1, y1) around each region, in pixels.
      sizes: pixels of each.
      children: the two regions that each later one is made of.
      first: the value that each first region has in `segments`.
    """

    segments: Int[np.ndarray, "h w"]
    boxes: Int[np.ndarray, "n 4"]
    sizes: Int[np.ndarray, " n"]
    children: Int[np.ndarray, "m 2"]
    first: Int[np.ndarray, " f"]

    def labels(self) -> list[tuple[int, ...]]:
        """The values in `segments` that make up each region."""
        found: list[tuple[int, ...]] = [(label,) for label in self.first.tolist()]
        for one, other in self.children.tolist():
            found.append(found[one] + found[other])
        return found


def selective_search(
    image: UInt8[np.ndarray, "h w 3"],
    mode: str = "fast",
    *,
    strategies: Sequence[Strategy] = (),
    min_side: float | int = 0,
    limit: int | None = None,
    seed: int = 0,
) -> Float32[np.ndarray, "n 4"]:
    """Boxes (x0, y0, x1, y1) in pixels that may hold an object: the best first, each once.

    A region's rank is its place in its hierarchy, 1 for the whole image, times a random number from
    0 to 1, as in section 4.3 of the paper.

    Args:
      image: RGB.
      mode: `fast`: the paper's, HSV and Lab, k = 50 and 100, similarities C+T+S+F and T+S+F.
        `quality`: the paper's 80 strategies. `single`: one hierarchy, `regions` with its defaults.
      strategies: instead of a mode's.
      min_side: boxes of which a side is shorter are left out; the authors' is 20.
      limit: at most so many boxes.
      seed: of the ranking.

    Raises:
      UserError: unknown mode, colour space or similarity, no image of three channels, or numbers
        outside their range.
    """
    _check(image)
    if mode not in MODES:
        raise unknown("mode of selective search", mode, MODES)
    if min_side < 0 or (limit is not None and limit < 1):
        raise UserError(f"min_side={min_side} must be at least 0, limit={limit} at least 1.")
    if mode == "single" and not strategies:
        found: Sequence[Hierarchy] = (regions(image),)
    else:
        found = hierarchies(image, strategies or {"fast": FAST, "quality": QUALITY}[mode])
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([h.boxes[::-1] for h in found])
    rank = np.concatenate(
        [np.arange(1, len(h.boxes) + 1) * rng.random(len(h.boxes)) for h in found]
    )
    boxes = boxes[np.argsort(rank, kind="stable")]
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).min(-1) >= min_side]
    _, once = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(once)][:limit].astype(np.float32)


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UserError(
            f"Selective search takes a uint8 image [h, w, 3], not {image.dtype} "
            f"{list(image.shape)}."
        )


def hierarchies(
    image: UInt8[np.ndarray, "h w 3"], strategies: Sequence[Strategy], sigma: float | int = 0.8
) -> list[Hierarchy]:
    """A hierarchy for each strategy.

    Two regions are neighbours where pixels share a side. Textures are responses of Gaussian
    derivatives (deviation 1) in eight orientations, in ten bins up to the channel's largest.

    Args:
      image: RGB.
      strategies: see `Strategy`.
      sigma: deviation of the blur before the image is segmented.

    Raises:
      UserError: see `selective_search`.
    """
    _check(image)
    for one in strategies:
        if one.colour not in COLOURS:
            raise unknown("colour space", one.colour, COLOURS)
        wrong = [letter for letter in one.similarity if letter not in SIMILARITIES]
        if wrong or not one.similarity:
            raise unknown("similarity", (wrong or [""])[0], SIMILARITIES)
        if not one.scale > 0:
            raise UserError(f"The scale of a strategy must be positive, got {one.scale}.")
    spaces: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    leaves: dict[tuple[str, float], _Leaves] = {}
    for colour, scale, _ in strategies:
        if colour not in spaces:
            pixels = in_colour(image, colour)
            bins = np.concatenate([_colour_bins(pixels), _texture_bins(pixels)])
            spaces[colour] = pixels, bins
        if (colour, scale) not in leaves:
            pixels, bins = spaces[colour]
            segments = felzenszwalb(
                pixels, scale=scale, sigma=sigma, min_size=round(scale), channel_axis=-1
            )
            leaves[colour, scale] = _with_opposites(
                _leaves(segments, bins, _touching), pixels.shape[-1]
            )
    weights = np.zeros((len(strategies), len(SIMILARITIES)), np.float32)
    for row, (colour, _, similarity) in zip(weights, strategies):
        channels = spaces[colour][0].shape[-1]
        each = (1 / channels, 1 / (channels * _ORIENTATIONS), 1, 1)  # so that all are at most 1
        row[:] = np.isin(list(SIMILARITIES), list(similarity)) * np.array(each, np.float32)
    return _grow([leaves[s.colour, s.scale] for s in strategies], weights, gap=0)


def regions(
    image: UInt8[np.ndarray, "h w 3"],
    scale: float | int = 1.0,
    sigma: float | int = 0.8,
    min_size: int = 50,
) -> Hierarchy:
    """The regions of the Python package `selectivesearch` 0.4, in its order, with its defaults.

    It departs from the paper: textures are local binary patterns, of which its bins tell only 0, 1
    and others apart; of its HSV only the value is told apart; regions are neighbours whose *boxes*
    overlap; and a box is a pixel narrower than its region when it counts what two regions fill.

    Args:
      image: RGB.
      scale: Felzenszwalb and Huttenlocher's k.
      sigma: deviation of the blur before the image is segmented.
      min_size: the fewest pixels of a first region.

    Raises:
      UserError: no image of three channels, or numbers outside their range.
    """
    _check(image)
    if not scale > 0 or sigma < 0 or min_size < 0:
        raise UserError(
            f"scale={scale} must be positive, sigma={sigma} and min_size={min_size} at least 0."
        )
    segments = felzenszwalb(img_as_float(image), scale=scale, sigma=sigma, min_size=min_size)
    value_bin = np.searchsorted(np.linspace(0, 255, 26)[1:-1], np.arange(256), "right")
    same = np.zeros(segments.shape, np.intp)
    # Hue and saturation are at most 1: in the first of 25 bins up to 255.
    bins = [same, same + 25, value_bin[image.max(-1)] + 50]
    for channel in range(3):
        pattern = local_binary_pattern(image[..., channel], 8, 1.0)
        first = _TEXTURES + 10 * channel
        bins.append(np.select([pattern == 0, pattern == 1], [first, first + 9], _BINS))
    leaves = _leaves(segments, np.stack(bins), _overlapping)
    return _grow([leaves], np.ones((1, 4)), gap=1)[0]


# -- the first regions ----------------------------------------------------------------------------


class _Leaves(NamedTuple):
    """What a segmentation gives: regions in the order in which a scan of the image meets them.

    Attributes:
      segments: [h w].
      first: [n], the value of each in `segments`.
      corners: [n 4], (x0, y0, x1, y1), whose ends are a pixel after the region's last.
      sizes: [n], in pixels.
      histograms: [n b], of colours, then of textures; counts over `sizes`.
      pairs: [p 2], neighbours.
    """

    segments: np.ndarray
    first: np.ndarray
    corners: np.ndarray
    sizes: np.ndarray
    histograms: np.ndarray
    pairs: np.ndarray


def _leaves(
    segments: np.ndarray,
    bins: np.ndarray,
    neighbours: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> _Leaves:
    """The first regions.

    Args:
      segments: [h w], 0 to their number less 1.
      bins: [maps h w], of histograms; `_BINS` is none of them.
      neighbours: pairs of regions [p 2], of a map of regions and their corners.
    """
    flat, (height, width) = segments.ravel(), segments.shape
    count = int(flat.max()) + 1
    met = np.empty(count, np.intp)
    met[flat[::-1]] = np.arange(flat.size)[::-1]  # the first pixel is written last
    first = np.argsort(met)
    number = np.empty(count, np.intp)
    number[first] = np.arange(count)
    regions = number[segments]
    corners = np.empty((count, 4), np.intp)
    for axis, length in ((0, width), (1, height)):
        there = np.zeros((count, length), bool)
        there[regions, np.indices(segments.shape, sparse=True)[1 - axis]] = True
        corners[:, axis] = there.argmax(1)
        corners[:, axis + 2] = length - there[:, ::-1].argmax(1)
    sizes = np.bincount(regions.ravel(), minlength=count)
    places = bins + regions * (_BINS + 1)
    counts = np.bincount(places.ravel(), minlength=count * (_BINS + 1)).reshape(count, -1)
    histograms = counts[:, :_BINS] / sizes[:, None]
    return _Leaves(segments, first, corners, sizes, histograms, neighbours(regions, corners))


def _with_opposites(leaves: _Leaves, channels: int) -> _Leaves:
    """Adds the pixels that `_texture_bins` leaves out: in an orientation's first bin."""
    end = _TEXTURES + channels * _ORIENTATIONS * _TEXTURE_BINS
    textures = leaves.histograms[:, _TEXTURES:end].reshape(len(leaves.sizes), -1, _TEXTURE_BINS)
    textures[..., 0] += 1 - textures.sum(-1)
    return leaves


def _touching(regions: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Regions of which pixels share a side."""
    sides = (regions[:-1], regions[1:]), (regions[:, :-1], regions[:, 1:])
    a, b = (np.concatenate([pair[n].ravel() for pair in sides]) for n in (0, 1))
    apart = a != b
    a, b = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
    return np.stack(np.divmod(np.unique(a * len(corners) + b), len(corners)), -1)


def _overlapping(regions: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Regions of which the earlier one's box has a corner of the other's strictly inside."""
    low, high = corners[:, None, :2], corners[:, None, 2:] - 1
    begins = (low < corners[:, :2]) & (corners[:, :2] < high)
    ends = (low < corners[:, 2:] - 1) & (corners[:, 2:] - 1 < high)
    inside = (begins | ends).all(-1)
    return np.argwhere(np.triu(inside, 1))


# -- colours and textures -------------------------------------------------------------------------


def in_colour(image: UInt8[np.ndarray, "h w 3"], colour: str) -> Float32[np.ndarray, "h w c"]:
    """An image in one of `COLOURS`, each channel from 0 to 1; section 4.2 of the paper.

    `rgi` is red and green over the sum, and intensity; `normalized_rgb` all three over the sum;
    `c` the opponent colours over the intensity (Geusebroek et al. 2001,
    https://doi.org/10.1109/34.977559).

    Raises:
      UserError: an unknown colour space.
    """
    rgb = image.astype(np.float32) / 255
    if colour == "rgb":
        return rgb
    if colour in ("hsv", "hue"):
        hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV) / np.array([360, 1, 1], np.float32)
        return hsv[..., :1] if colour == "hue" else hsv
    if colour == "lab":
        lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)
        return (lab + np.array([0, 128, 128], np.float32)) / np.array([100, 255, 255], np.float32)
    total = rgb.sum(-1, keepdims=True)
    share = rgb / np.where(total > 0, total, 1)
    if colour == "intensity":
        return total / 3
    if colour == "rgi":
        return np.concatenate([share[..., :2], total / 3], -1)
    if colour == "normalized_rgb":
        return share
    if colour == "c":
        red, green, blue = np.moveaxis(share, -1, 0)
        opponents = [(red - green + 1) / 2, (red + green - 2 * blue + 2) / 3]
        return np.concatenate([np.stack(opponents, -1), total / 3], -1)
    raise unknown("colour space", colour, COLOURS)


def _colour_bins(pixels: np.ndarray) -> np.ndarray:
    """[channels h w]."""
    channels = np.moveaxis(pixels, -1, 0)
    bins = np.clip((channels * _COLOUR_BINS).astype(np.intp), 0, _COLOUR_BINS - 1)
    return bins + _COLOUR_BINS * np.arange(len(bins))[:, None, None]


def _texture_bins(pixels: np.ndarray) -> np.ndarray:
    """Of every two opposite orientations the one in which the image rises: [maps h w]."""
    x = np.arange(-3, 4, dtype=np.float32)
    bell = np.exp(-(x**2) / 2) / np.exp(-(x**2) / 2).sum()
    rise_x, rise_y = (
        np.atleast_3d(cv2.sepFilter2D(pixels, cv2.CV_32F, *kernels, borderType=cv2.BORDER_REFLECT))
        for kernels in ((x * bell, bell), (bell, x * bell))
    )
    half, maps = _ORIENTATIONS // 2, []
    for channel in range(rise_x.shape[-1]):
        first = _TEXTURES + channel * _ORIENTATIONS * _TEXTURE_BINS
        angles = np.arange(half, dtype=np.float32)[:, None, None] * np.float32(np.pi / half)
        rise = np.cos(angles) * rise_x[..., channel] + np.sin(angles) * rise_y[..., channel]
        strength = np.abs(rise)
        most = max(float(strength.max()), 1e-4)  # what rounding alone makes is no texture
        bins = np.minimum((strength * (_TEXTURE_BINS / most)).astype(np.intp), _TEXTURE_BINS - 1)
        orientation = np.arange(half)[:, None, None] + half * (rise < 0)
        maps.append(first + orientation * _TEXTURE_BINS + bins)
    return np.concatenate(maps)


# -- hierarchies ----------------------------------------------------------------------------------


class _Front:
    """The regions of one hierarchy that can still be merged, the most similar pair first."""

    def __init__(self, new: int, pairs: np.ndarray, similarities: np.ndarray):
        self.new = new  # the number that the next region gets
        self.neighbours: dict[int, dict[int, int]] = {}  # and when each became one
        self._clock = itertools.count()
        self._heap: list[tuple[float, int, int, int]] = []
        for (a, b), similarity in zip(pairs.tolist(), similarities.tolist()):
            self._add(a, b, similarity)

    def _add(self, a: int, b: int, similarity: float) -> None:
        now = next(self._clock)
        self.neighbours.setdefault(a, {})[b] = now
        self.neighbours.setdefault(b, {})[a] = now
        # Of equal pairs the latest is merged first.
        heapq.heappush(self._heap, (-similarity, -now, a, b))

    def merge(self) -> tuple[tuple[int, int, int], list[int]] | None:
        """(two regions, what they become) and its neighbours, the oldest first; None at the end."""
        while self._heap:
            *_, a, b = heapq.heappop(self._heap)
            if a not in self.neighbours or b not in self.neighbours:
                continue
            both = self.neighbours.pop(a), self.neighbours.pop(b)
            ages = sorted((now, other) for one in both for other, now in one.items())
            others = list(dict.fromkeys(other for _, other in ages if other not in (a, b)))
            for other in others:
                for gone in (a, b):
                    self.neighbours[other].pop(gone, None)
            self.new += 1
            return (a, b, self.new - 1), others
        return None

    def add(self, new: int, others: list[int], similarities: list[float]) -> None:
        for other, similarity in zip(others, similarities):
            self._add(new, other, similarity)


def _grow(leaves: Sequence[_Leaves], weights: np.ndarray, gap: int) -> list[Hierarchy]:
    """All hierarchies at once, a merger of each at a time, so that NumPy is called once for all.

    Args:
      leaves: the first regions of each.
      weights: [hierarchies, 4], of each of `SIMILARITIES`.
      gap: by how many pixels a box is narrower than its region, when it is filled.
    """
    most = [2 * len(one.sizes) - 1 for one in leaves]
    starts = np.cumsum([0, *most])
    pixels = leaves[0].segments.size
    corners = np.zeros((starts[-1], 4), np.intp)
    sizes = np.zeros(starts[-1], np.intp)
    histograms = np.zeros((starts[-1], _BINS), weights.dtype)
    weights = np.repeat(weights, most, axis=0)
    for start, one in zip(starts.tolist(), leaves):
        here = slice(start, start + len(one.sizes))
        corners[here], sizes[here], histograms[here] = one.corners, one.sizes, one.histograms

    def around(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        low = np.minimum(corners[a, :2], corners[b, :2])
        return np.concatenate([low, np.maximum(corners[a, 2:], corners[b, 2:])], -1)

    def similarities(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        shared = np.minimum(histograms[a], histograms[b])
        # One after another, so that what is equal stays equal to the last bit.
        colour = np.cumsum(shared[:, :_TEXTURES], 1)[:, -1]
        texture = np.cumsum(shared[:, _TEXTURES:], 1)[:, -1]
        size = 1 - (sizes[a] + sizes[b]) / pixels
        box = around(a, b)
        area = (box[:, 2] - box[:, 0] - gap) * (box[:, 3] - box[:, 1] - gap)
        fill = 1 - (area - sizes[a] - sizes[b]) / pixels
        w = weights[a].T
        return w[0] * colour + w[1] * texture + w[2] * size + w[3] * fill

    fronts = []
    for start, one in zip(starts.tolist(), leaves):
        pairs = one.pairs + start
        new = start + len(one.sizes)
        fronts.append(_Front(new, pairs, similarities(pairs[:, 0], pairs[:, 1])))
    children: list[list[tuple[int, int]]] = [[] for _ in leaves]
    while True:
        merged = [(n, found) for n, front in enumerate(fronts) if (found := front.merge())]
        if not merged:
            break
        for n, ((a, b, _), _) in merged:
            children[n].append((a, b))
        a, b, new = np.array([family for _, (family, _) in merged]).T
        corners[new] = around(a, b)
        sizes[new] = sizes[a] + sizes[b]
        mass = sizes[:, None]
        total = histograms[a] * mass[a] + histograms[b] * mass[b]
        histograms[new] = total / mass[new]
        lengths = [len(others) for _, (_, others) in merged]
        near = np.fromiter(itertools.chain(*(others for _, (_, others) in merged)), np.intp)
        values = iter(similarities(np.repeat(new, lengths), near).tolist())
        for n, (family, others) in merged:
            fronts[n].add(family[2], others, list(itertools.islice(values, len(others))))
    return [
        Hierarchy(
            one.segments,
            corners[start : front.new],
            sizes[start : front.new],
            np.array(pairs, np.intp).reshape(-1, 2) - start,
            one.first,
        )
        for one, front, pairs, start in zip(leaves, fronts, children, starts)
    ]
