"""Pictures of key points and of the limbs between them, drawn on the host with OpenCV."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from jaxvision.tasks.pictures import as_colour, class_colour

Colour = tuple[int, int, int]
Pairs = Sequence[tuple[int, int]]

LEFT, RIGHT, MIDDLE = (255, 138, 30), (20, 132, 255), (126, 211, 80)
_EDGE, _RIM = (24, 24, 28), (255, 255, 255)
_BITS = 4  # OpenCV takes coordinates in sixteenths of a pixel


def point_colours(count: int, pairs: Pairs) -> list[Colour]:
    """A colour of each key point: of its side, or where there are no sides one of its own.

    Args:
      count: number of key points.
      pairs: (left, right) indices.
    """
    if not pairs:
        return [class_colour(index) for index in range(count)]
    sides = {left: LEFT for left, _ in pairs} | {right: RIGHT for _, right in pairs}
    return [sides.get(index, MIDDLE) for index in range(count)]


def limb_colour(colours: Sequence[Colour], first: int, second: int) -> Colour:
    """That of the limb's side; where it joins left and right, that of the middle."""
    ends = {colours[first], colours[second]} - {MIDDLE}
    if ends == {LEFT, RIGHT} or not ends:
        return MIDDLE
    return colours[second] if colours[second] in ends else colours[first]


def coloured_limbs(count: int, limbs: Pairs, pairs: Pairs) -> list[tuple[int, int, Colour]]:
    """The key points that each limb joins, and its colour; see `point_colours`."""
    colours = point_colours(count, pairs)
    return [(first, second, limb_colour(colours, first, second)) for first, second in limbs]


def drawn(
    image: UInt8[np.ndarray, "h w c"],
    points: Float[np.ndarray, "k 2"],
    shown: Bool[np.ndarray, " k"],
    limbs: Pairs,
    pairs: Pairs,
    least: int = 320,
) -> UInt8[np.ndarray, "i j 3"]:
    """The image, enlarged to `least` pixels or more, with key points and the limbs between them.

    Args:
      image: grey or in colour.
      points: (x, y) in pixels of the image.
      shown: which of them are drawn; a limb is where both its ends are.
      limbs: the key points that each joins.
      pairs: (left, right) key points, which decide on colours.
      least: pixels of the shorter side.
    """
    factor = max(1.0, least / min(image.shape[:2]))
    height, width = (round(side * factor) for side in image.shape[:2])
    canvas = as_colour(image)
    if factor > 1:
        canvas = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_CUBIC)
    canvas = np.ascontiguousarray(canvas).copy()
    thick = max(2, min(height, width) // 90)
    colours = point_colours(len(points), pairs)
    # Pixel i covers [i, i + 1) here; OpenCV counts from the centre of the first one.
    places = [
        tuple(round((float(value) * factor - 0.5) * 2**_BITS) for value in point) if there else None
        for point, there in zip(points, shown)
    ]

    def line(ends: tuple[int, int], colour: Colour, width: int) -> None:
        one, other = (places[end] for end in ends)
        if one is not None and other is not None:
            cv2.line(canvas, one, other, colour, width, cv2.LINE_AA, _BITS)

    for limb in limbs:
        line(limb, _EDGE, thick + 2)
    for limb in limbs:
        line(limb, limb_colour(colours, *limb), thick)
    for place, colour in zip(places, colours):
        if place is not None:
            for radius, paint in ((thick + 2, _EDGE), (thick + 1, _RIM), (thick - 1, colour)):
                cv2.circle(canvas, place, radius << _BITS, paint, -1, cv2.LINE_AA, _BITS)
    return canvas
