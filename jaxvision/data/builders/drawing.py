"""Draws one scene of shapes with all its annotations: a pure function of (seed, index, size).

A scene is sampled in units of the image's width and then drawn, so (seed, index) decides what is
seen and `size` only how finely. Pixel i covers the interval [i, i + 1), in boxes and key points.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

MAX_OBJECTS = 6
KEYPOINTS = 4  # the centre, then three points that are the shape's own
LEAST_VISIBLE = 0.2  # of an object's area; what would show less is not in the scene
DOMINANCE = 1.25  # visible area of the largest object over that of the next, at least
_SUPERSAMPLE = 4


class Outline(NamedTuple):
    """A shape of area 1 about the origin, y pointing down.

    Attributes:
      contours: closed polygons, filled by the even-odd rule.
      points: [3, 2], the key points beside the centre.
      symmetry: the order of its rotational symmetry; 0 for a shape of revolution.
    """

    contours: tuple[Float[np.ndarray, "_ 2"], ...]
    points: Float[np.ndarray, "3 2"]
    symmetry: int


def _arc(start: int, stop: int, count: int, radius: float = 1.0) -> np.ndarray:
    """Points on a circle; degrees, clockwise as seen, 0 at the top."""
    angle = np.radians(np.linspace(start, stop, count))
    return radius * np.stack([np.sin(angle), -np.cos(angle)], axis=-1)


def _regular(corners: int) -> np.ndarray:
    return _arc(0, 360, corners + 1)[:-1]


def _outline(contours, points, symmetry: int) -> Outline:
    """Moves the centre of mass to the origin and the area to 1."""
    # Of a ring, the inner contour takes area away; it shares its centre with the outer one.
    area = cv2.contourArea(contours[0].astype(np.float32))
    area -= sum(cv2.contourArea(inner.astype(np.float32)) for inner in contours[1:])
    moments = cv2.moments(contours[0].astype(np.float32))
    centre = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    place = lambda xy: (np.asarray(xy, np.float64) - centre) / math.sqrt(area)  # noqa: E731
    return Outline(tuple(place(contour) for contour in contours), place(points), symmetry)


def _outlines() -> dict[str, Outline]:
    star = _arc(0, 360, 11)[:-1] * np.where(np.arange(10) % 2, 0.45, 1.0)[:, None]
    cross = np.array([[-1, -3], [1, -3], [1, -1], [3, -1], [3, 1], [1, 1]], float)
    cross = np.concatenate([cross, -cross])
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    heart = np.stack(
        [
            16 * np.sin(turn) ** 3,
            5 * np.cos(2 * turn) + 2 * np.cos(3 * turn) + np.cos(4 * turn) - 13 * np.cos(turn),
        ],
        axis=-1,
    )
    inner = _arc(-140, 140, 48, radius=0.78) * [1, -1] + [0, -0.42]
    crescent = np.concatenate([_arc(45, 315, 64), inner])
    arrow = np.array(
        [[0, -2], [1.5, -0.2], [0.6, -0.2], [0.6, 2], [-0.6, 2], [-0.6, -0.2], [-1.5, -0.2]], float
    )
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    thirds = _regular(3)
    return {
        "circle": _outline([_regular(64)], 0.9 * thirds, 0),
        "square": _outline([corners], 0.85 * corners[:3], 4),
        "triangle": _outline([thirds], 0.8 * thirds, 3),
        "star": _outline([star], 0.85 * star[[0, 4, 6]], 5),
        "ring": _outline([_regular(64), 0.55 * _regular(48)], 0.78 * thirds, 0),
        "cross": _outline([cross], [[0, -2.6], [2.6, 0], [-2.6, 0]], 4),
        "pentagon": _outline([_regular(5)], 0.85 * _regular(5)[[0, 2, 3]], 5),
        "heart": _outline([heart], [[-9, -8], [9, -8], [0, 15]], 1),
        "crescent": _outline([crescent], [[0, 0.7], [0.8, -0.2], [-0.8, -0.2]], 1),
        "arrow": _outline([arrow], [[0, -1.7], [0, 1.8], [1.0, -0.4]], 1),
    }


OUTLINES = _outlines()
CLASSES = list(OUTLINES)

COLOURS = {
    "red": (0.80, 0.13, 0.13),
    "orange": (0.95, 0.50, 0.08),
    "yellow": (0.95, 0.85, 0.20),
    "green": (0.18, 0.60, 0.22),
    "turquoise": (0.20, 0.76, 0.74),
    "blue": (0.15, 0.30, 0.82),
    "purple": (0.52, 0.22, 0.68),
    "pink": (0.96, 0.56, 0.73),
    "brown": (0.45, 0.28, 0.14),
    "white": (0.93, 0.93, 0.91),
    "grey": (0.52, 0.52, 0.53),
    "black": (0.10, 0.10, 0.11),
}


class Thing(NamedTuple):
    """One object of a scene; lengths in units of the image's width, areas of its area."""

    label: int
    colour: str
    area: float
    matrix: Float[np.ndarray, "2 2"]  # from the outline to the scene
    centre: Float[np.ndarray, "2"]


def _thing(rng: np.random.Generator, colours: list[str], dominant: bool) -> Thing:
    label = int(rng.integers(len(CLASSES)))
    area = math.exp(rng.uniform(*np.log([0.09, 0.20] if dominant else [0.012, 0.055])))
    # A stretch along any direction, with no rotation of its own (a symmetric matrix) ...
    direction, ratio = rng.uniform(0, math.pi), math.exp(rng.uniform(-0.35, 0.35))
    turn = _rotation(direction)
    stretch = turn @ np.diag([math.sqrt(ratio), 1 / math.sqrt(ratio)]) @ turn.T
    # ... after a rotation within the shape's symmetry: every orientation occurs, and yet which
    # corner is the first key point can be told from the picture (the one that is most upright).
    symmetry = OUTLINES[CLASSES[label]].symmetry
    half = math.pi / symmetry if symmetry else 0.0
    matrix = math.sqrt(area) * stretch @ _rotation(rng.uniform(-half, half))
    low, high = (0.32, 0.68) if dominant else (0.08, 0.92)
    return Thing(label, str(rng.choice(colours)), area, matrix, rng.uniform(low, high, 2))


def _rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _coverage(thing: Thing, size: int) -> Float32[np.ndarray, "s s"]:
    """The part of each pixel that the object covers, 0 to 1, disregarding other objects."""
    fine = np.zeros((size * _SUPERSAMPLE, size * _SUPERSAMPLE), np.uint8)
    shift = 4  # fillPoly takes fixed-point coordinates of pixel centres
    contours = [
        np.round(((contour @ thing.matrix.T + thing.centre) * len(fine) - 0.5) * 2**shift).astype(
            np.int32
        )
        for contour in OUTLINES[CLASSES[thing.label]].contours
    ]
    cv2.fillPoly(fine, contours, 255, shift=shift)
    coarse = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
    return coarse.astype(np.float32) / 255


def _arrange(
    things: list[Thing], dominant: Thing, size: int
) -> tuple[list[Thing], list[np.ndarray], np.ndarray]:
    """Leaves out what is hidden: (objects from back to front, their coverage, instance map).

    Works from the front backwards, since what is left out hides nothing.
    """
    kept: list[tuple[Thing, np.ndarray]] = []
    visible: dict[int, int] = {}
    taken = np.zeros((size, size), bool)
    for thing in reversed(things):
        coverage = _coverage(thing, size)
        solid = coverage >= 0.5
        pixels = int(np.count_nonzero(solid & ~taken))
        if pixels and pixels >= LEAST_VISIBLE * thing.area * size**2:
            kept.append((thing, coverage))
            visible[id(thing)] = pixels
            taken |= solid
    others = [pixels for thing, pixels in visible.items() if thing != id(dominant)]
    if visible.get(id(dominant), 0) < DOMINANCE * max(others, default=1):
        front = [thing for thing in things if thing is not dominant]
        if things[-1] is not dominant:
            return _arrange([*front, dominant], dominant, size)
        return _arrange([dominant], dominant, size)
    kept.reverse()
    instances = np.zeros((size, size), np.uint8)
    for number, (_, coverage) in enumerate(kept, start=1):
        instances[coverage >= 0.5] = number
    return [thing for thing, _ in kept], [coverage for _, coverage in kept], instances


def _noise(
    rng: np.random.Generator, size: int, cells: int, octaves: int, fall: float = 0.6
) -> Float32[np.ndarray, "s s"]:
    """Smooth noise from 0 to 1: octaves of random grids, each finer and weaker by `fall`."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        grid = rng.random((cells << octave, cells << octave), np.float32) * fall**octave
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    return (total - total.min()) / (total.max() - total.min())


def _pattern(rng: np.random.Generator, size: int) -> Float32[np.ndarray, "s s"]:
    """A texture from 0 to 1: noise, blotches, a gradient, stripes, checks or dots."""
    kind = rng.integers(6)
    if kind == 0:
        return _noise(rng, size, 3, 4)
    if kind == 1:
        return _step(_noise(rng, size, int(rng.integers(3, 7)), 3) - rng.uniform(0.4, 0.6), 12)
    angle, phase = rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    x, y = axis[None, :], axis[:, None]
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    if kind == 2:
        return np.clip(along + 0.5, 0, 1)
    wave = 2 * math.pi * rng.uniform(4, 12)
    bend = rng.uniform(0, 0.15) * _noise(rng, size, 2, 2)  # no real stripe is quite straight
    first = np.sin(wave * (along + bend) + phase)
    if kind == 3:
        return _step(first - rng.uniform(-0.5, 0.5), 4)
    second = np.sin(wave * (across + bend))
    if kind == 4:
        return _step(first * second, 6)
    return _step(first + second - rng.uniform(0.4, 1.0), 4)


def _step(value: np.ndarray, steepness: int) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(np.float32(steepness) * value, dtype=np.float32)


def _paint(
    rng: np.random.Generator, size: int, first: np.ndarray, second: np.ndarray
) -> Float32[np.ndarray, "s s 3"]:
    """A textured surface between two colours, with a grain of its own."""
    mixture = _pattern(rng, size)[..., None]
    surface = first.astype(np.float32) + (second - first).astype(np.float32) * mixture
    grain = _noise(rng, size, 8, 3, fall=0.9) - 0.5
    return surface * (1 + np.float32(rng.uniform(0.1, 0.5)) * grain)[..., None]


def _shade(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another tone of a colour: lighter or darker, so that its name stays true."""
    factor = rng.uniform(0.45, 0.7) if rgb.mean() > 0.3 or rng.random() < 0.3 else 1.4
    return np.clip(rgb * factor + (0.05 if factor > 1 else 0), 0, 1)


def _render(
    rng: np.random.Generator, background: np.ndarray, things: list[Thing], coverages: list
) -> UInt8[np.ndarray, "s s 3"]:
    size = len(background)
    pixel = size / 64  # lengths below are meant for 64 pixels
    angle = rng.uniform(0, 2 * math.pi)
    light = math.cos(angle), math.sin(angle)  # from where the light falls
    reach, softness = pixel * rng.uniform(1, 5), pixel * rng.uniform(0.6, 2.0)
    shadow_depth, relief = rng.uniform(0.25, 0.7), rng.uniform(0.3, 1.2)

    canvas = background
    for thing, coverage in zip(things, coverages, strict=True):
        offset = np.array([[1, 0, -reach * light[0]], [0, 1, -reach * light[1]]])
        shadow = cv2.warpAffine(coverage, offset, (size, size))
        shadow = cv2.GaussianBlur(shadow, (0, 0), softness)
        canvas = canvas * (1 - np.float32(shadow_depth) * shadow)[..., None]

        rgb = np.clip(COLOURS[thing.colour] + rng.uniform(-0.06, 0.06, 3), 0.03, 1)
        surface = _paint(rng, size, rgb, _shade(rgb, rng))
        # A bevel: the blurred silhouette taken as height, brighter where it faces the light.
        width = 0.18 * math.sqrt(thing.area) * size
        height = cv2.GaussianBlur(coverage, (0, 0), width)
        slope_x, slope_y = cv2.Sobel(height, -1, 1, 0), cv2.Sobel(height, -1, 0, 1)
        facing = -(slope_x * light[0] + slope_y * light[1]) * np.float32(relief * width / 4)
        surface = surface * (1 + facing)[..., None] + np.maximum(facing, 0)[..., None] * 0.15
        canvas = canvas + (surface - canvas) * coverage[..., None]

    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    fall = axis[None, :] * light[0] + axis[:, None] * light[1]
    vignette = axis[None, :] ** 2 + axis[:, None] ** 2
    lighting = 1 + rng.uniform(0, 0.6) * fall - rng.uniform(0, 0.5) * vignette
    white_balance = rng.uniform(0.8, 1.15) * rng.uniform(0.92, 1.08, 3)
    canvas = canvas * lighting.astype(np.float32)[..., None] * white_balance.astype(np.float32)
    canvas = cv2.GaussianBlur(canvas, (0, 0), pixel * rng.uniform(0.2, 0.7))
    # Sensor noise: a constant part, and photon noise that grows with the root of the light.
    canvas = np.clip(canvas, 0, 1)
    level = rng.uniform(0.005, 0.03) + rng.uniform(0, 0.04) * np.sqrt(canvas)
    canvas = canvas + np.float32(level) * rng.standard_normal(canvas.shape, np.float32)
    return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


def _boxes(instances: np.ndarray, count: int) -> Float32[np.ndarray, "n 4"]:
    boxes = np.zeros((count, 4), np.float32)
    for number in range(count):
        x, y, width, height = cv2.boundingRect((instances == number + 1).view(np.uint8))
        boxes[number] = x, y, x + width, y + height
    return boxes


def _keypoints(things: list[Thing], instances: np.ndarray) -> Float32[np.ndarray, "n k 3"]:
    """(x, y, visible): visible when inside the image and behind no other object."""
    size = len(instances)
    keypoints = np.zeros((len(things), KEYPOINTS, 3), np.float32)
    for number, thing in enumerate(things):
        points = np.concatenate([np.zeros((1, 2)), OUTLINES[CLASSES[thing.label]].points])
        xy = np.float32((points @ thing.matrix.T + thing.centre) * size)
        inside = ((xy >= 0) & (xy < size)).all(-1)
        column, row = np.clip(xy.astype(int), 0, size - 1).T
        keypoints[number, :, :2] = xy
        keypoints[number, :, 2] = inside & (instances[row, column] <= number + 1)
    return keypoints


_NUMBERS = ["", "one", "two", "three", "four", "five"]


def _caption(things: list[Thing], coverages: list, visible: np.ndarray) -> str:
    """Names the three largest objects, the others relative to the largest, and counts the rest."""
    order = np.argsort(-visible, kind="stable")
    first = int(order[0])
    column = min(int(things[first].centre[0] * 3), 2)
    row = min(int(things[first].centre[1] * 3), 2)
    place = ["upper", "", "lower"][row] + " " + ["left", "", "right"][column]
    place = {" ": "in the middle", "upper ": "at the top", "lower ": "at the bottom"}.get(
        place, f"on the {place.strip()}"
    )
    phrases = []
    for other in map(int, order[1:3]):
        shared = np.minimum(coverages[first], coverages[other]).sum()
        x, y = things[other].centre - things[first].centre
        if shared > 0.15 * coverages[other].sum():
            relation = "in front of it" if other > first else "behind it"
        elif abs(x) > abs(y):
            relation = "to its right" if x > 0 else "to its left"
        else:
            relation = "below it" if y > 0 else "above it"
        phrases.append(f"{_noun(things[other], visible[other])} {relation}")
    rest = len(things) - 1 - len(phrases)
    if rest:
        phrases.append(f"{_NUMBERS[rest]} more {'shape' if rest == 1 else 'shapes'}")
    subject = _noun(things[first], visible[first])
    sentence = f"{subject[0].upper()}{subject[1:]} {place}"
    if phrases:
        sentence += ", with " + ", ".join(phrases[:-1])
        sentence += (" and " if phrases[:-1] else "") + phrases[-1]
    return sentence + "."


def _noun(thing: Thing, visible: float) -> str:
    """For instance "a small orange ring"; `visible` is a fraction of the image's area."""
    word = "small" if visible < 0.025 else "medium" if visible < 0.09 else "large"
    return f"a {word} {thing.colour} {CLASSES[thing.label]}"


def draw(seed: int, index: int, size: int) -> dict:
    """One record: it depends on (seed, index, size) alone.

    Objects are numbered from back to front. One that would show less than `LEAST_VISIBLE` of its
    area is left out of the picture, so that nothing is seen that is not annotated.

    Args:
      seed: at least 0.
      index: at least 0.
      size: height and width in pixels, s below.

    Returns:
      image: [s, s, 3] uint8, RGB.
      label: class of the largest visible object, an index into `CLASSES`.
      boxes: [n, 4] float32, (x0, y0, x1, y1) in pixels, tight around visible pixels; 1 <= n <= 6.
      box_label: [n] int64.
      instances: [s, s] uint8, 0 is background and k the k-th object.
      segmentation: [s, s] uint8, 0 is background, else class + 1.
      keypoints: [n, 4, 3] float32, (x, y, visible): the centre and three points of the shape.
      caption: str, English.
    """
    rng = np.random.default_rng([seed, index])
    names = list(COLOURS)
    # The backgrounds are paler than the objects, and an object differs from both their colours.
    behind = rng.choice(len(names), 2, replace=False)
    tint = np.array([COLOURS[names[c]] for c in behind])
    tint = np.clip(tint + (tint.mean(-1, keepdims=True) - tint) * rng.uniform(0.2, 0.8), 0.05, 0.95)
    background = _paint(rng, size, *tint)
    far = [
        name for name, rgb in COLOURS.items() if np.abs(tint - np.array(rgb)).mean(-1).min() > 0.14
    ]

    others = rng.choice(MAX_OBJECTS, p=[0.2, 0.2, 0.2, 0.15, 0.15, 0.1])
    dominant = _thing(rng, far, dominant=True)
    things = [_thing(rng, far, dominant=False) for _ in range(others)]
    things.insert(int(rng.integers(others + 1)), dominant)
    things, coverages, instances = _arrange(things, dominant, size)

    box_label = np.array([thing.label for thing in things], np.int64)
    visible = np.bincount(instances.ravel(), minlength=len(things) + 1)[1:] / size**2
    return {
        "image": _render(rng, background, things, coverages),
        "label": dominant.label,
        "boxes": _boxes(instances, len(things)),
        "box_label": box_label,
        "instances": instances,
        "segmentation": np.concatenate([[0], box_label + 1]).astype(np.uint8)[instances],
        "keypoints": _keypoints(things, instances),
        "caption": _caption(things, coverages, visible),
    }
