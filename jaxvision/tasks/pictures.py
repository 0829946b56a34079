"""Pictures of predictions, drawn on the host with Pillow."""

import colorsys
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from jaxvision.inspect.text import font_for, printable, wrapped

_VOID = (224, 224, 224)
_BACKGROUND = ("background", "bg", "backgrnd", "void", "unlabeled", "unlabelled")
_LINE = 18  # pixels of a line of text


def palette(count: int) -> np.ndarray:
    """uint8 [count, 3]: colours of PASCAL VOC's labels, then on by the same bit pattern."""
    indices = np.arange(count)[:, None]
    colours = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        bits = (indices >> np.array([3 * bit, 3 * bit + 1, 3 * bit + 2])) & 1
        colours |= (bits << (7 - bit)).astype(np.uint8)
    return colours


def as_colour(image: np.ndarray) -> np.ndarray:
    """uint8 [..., 1 or 3] as [..., 3]."""
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def colour_map(labels: np.ndarray, num_classes: int = 255) -> np.ndarray:
    """Class indices [...] as colours uint8 [..., 3]; what is no class is light grey."""
    table = palette(num_classes + 1)
    table[num_classes] = _VOID
    return table[np.minimum(labels, num_classes)]


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    num_classes: int = 255,
    opacity: float = 0.5,
    clear: Sequence[int] = (),
) -> np.ndarray:
    """The image with its label map laid over it.

    Args:
      image: uint8 [h, w, 1 or 3].
      labels: class indices [h, w].
      num_classes: what is not below it is no class, and leaves the image as it is.
      opacity: of the map.
      clear: classes that leave the image as it is, too, such as the background.
    """
    below = as_colour(image)
    maps = Image.fromarray(below), Image.fromarray(colour_map(labels, num_classes))
    mixed = np.array(Image.blend(*maps, opacity))  # large photographs are never floats
    left = (labels >= num_classes) | np.isin(labels, list(clear))
    mixed[left] = below[left]
    return mixed


def background_of(class_names: Sequence[str]) -> list[int]:
    """The classes that stand for what is nothing in particular, by their names."""
    return [i for i, name in enumerate(class_names) if name.lower().strip("_ ") in _BACKGROUND]


def with_legend(picture: np.ndarray, class_names: Sequence[str], shown: Sequence[int]):
    """A picture uint8 [h, w, 3] over the names and colours of the classes `shown`."""
    return np.asarray(_over_legend(Image.fromarray(picture), class_names, shown))


def _enlarge(image: np.ndarray, least: int) -> Image.Image:
    """At least `least` pixels wide, by a whole factor, so that small images stay sharp."""
    picture = Image.fromarray(as_colour(image))
    factor = max(1, -(-least // picture.width))
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )


def grid(images: np.ndarray, columns: int = 0, least: int = 48) -> np.ndarray:
    """Images uint8 [n, h, w, c] side by side, as square as can be, each at least `least` wide."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    tiles = [np.asarray(_enlarge(image, least)) for image in images]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    padded = [np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=255) for tile in tiles]
    lines = [np.concatenate(padded[i : i + columns], 1) for i in range(0, len(padded), columns)]
    return np.concatenate(lines)


Row = Mapping[str, np.ndarray]  # of one image


def pairs(
    batch: Mapping[str, Any],
    outputs: Mapping[str, Any],
    found: Callable[[np.ndarray, Row], np.ndarray],
    true: Callable[[np.ndarray, Row], np.ndarray],
    known: Sequence[str],
) -> np.ndarray:
    """A grid of pairs of pictures: what is there on the left, if it is known, and what is found.

    Args:
      batch: host arrays [b, ...], `image` among them.
      outputs: what is found [b, ...].
      found, true: make a picture uint8 [h, w, 3] of an image and its row of `outputs` or `batch`.
      known: what a batch has where it says what is there.
    """
    tiles = []
    for place, image in enumerate(np.asarray(batch["image"])):
        sides = [found(image, {name: np.asarray(value)[place] for name, value in outputs.items()})]
        if all(name in batch for name in known):
            there = {name: np.asarray(value)[place] for name, value in batch.items()}
            sides.insert(0, true(image, there))
        tiles.append(np.concatenate(sides, 1))
    return grid(np.stack(tiles), columns=min(2, len(tiles)))


def boxed(image: np.ndarray, boxes: Sequence[tuple[Any, str]], least: int = 160) -> np.ndarray:
    """The image, enlarged to `least` pixels or more, with boxes (x0, y0, x1, y1) in colours."""
    canvas = _enlarge(image, least)
    factor = canvas.width / image.shape[1]
    draw, width = ImageDraw.Draw(canvas), max(2, canvas.width // 160)
    for box, colour in boxes:
        x0, y0, x1, y1 = (float(side) * factor for side in box)
        if x1 >= x0 and y1 >= y0:
            draw.rectangle((x0, y0, x1, y1), outline=colour, width=width)
    return np.asarray(canvas)


def class_colour(index: int) -> tuple[int, int, int]:
    """A colour of a class that stands out from photographs and from its neighbours' colours."""
    hue = index * 0.618034 % 1  # the golden section spreads any number of hues evenly
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.9, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def quiet_colour(index: int) -> tuple[int, int, int]:
    """As `class_colour`, of what is seen behind others."""
    red, green, blue = (round(0.45 * side + 0.55 * 140) for side in class_colour(index))
    return red, green, blue


def labelled(
    image: np.ndarray,
    boxes: Any,
    texts: Sequence[str],
    classes: Any,
    least: int = 320,
) -> np.ndarray:
    """The image, enlarged to `least` pixels or more, with boxes in the colours of their classes.

    Args:
      image: uint8 [h, w, 1 or 3].
      boxes: [n, 4], (x0, y0, x1, y1) in pixels of the image; the first is drawn on top.
      texts: what stands at each.
      classes: of each, integers [n].
      least: see `boxed`.
    """
    canvas = _enlarge(image, least)
    factor = canvas.width / image.shape[1]
    draw, width = ImageDraw.Draw(canvas), max(2, canvas.width // 240)
    size = max(11, canvas.width // 45)
    for box, text, label in reversed(list(zip(boxes, texts, classes, strict=True))):
        x0, y0, x1, y1 = (float(side) * factor for side in box)
        if x1 < x0 or y1 < y0:
            continue
        text = printable(text)
        colour, font = class_colour(int(label)), font_for(text, size)
        draw.rectangle((x0, y0, x1, y1), outline=colour, width=width)
        left, top, right, bottom = font.getbbox(text)
        wide, high = right - left + 6, bottom - top + 6
        x = max(0, min(x0, canvas.width - wide))
        y = y0 - high if y0 >= high else min(y0, canvas.height - high)  # inside at the upper edge
        draw.rectangle((x, y, x + wide, y + high), fill=colour)
        bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
        ink = "black" if bright > 140 else "white"
        draw.text((x + 3 - left, y + 3 - top), text, fill=ink, font=font)
    return np.asarray(canvas)


def masked(
    image: np.ndarray,
    crops: Sequence[np.ndarray],
    corners: Sequence[Any],
    colours: Sequence[tuple[int, int, int]],
    opacity: float = 0.45,
) -> np.ndarray:
    """The image with masks laid over it, each with a rim; the first on top.

    Args:
      image: uint8 [h, w, 3].
      crops: bool, where each mask has pixels.
      corners: (top, left) of each crop in the image.
      colours: of each.
      opacity: of a mask; its rim is opaque.
    """
    mixed = image.copy()
    for crop, (top, left), colour in reversed(list(zip(crops, corners, colours, strict=True))):
        part = mixed[top : top + crop.shape[0], left : left + crop.shape[1]]
        part[crop] = (part[crop] * (1 - opacity) + np.array(colour) * opacity).astype(np.uint8)
        around = np.pad(crop, 1)
        inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
        part[crop & ~inner] = colour
    return mixed


def segmented(
    image: np.ndarray,
    numbers: np.ndarray,
    colours: Mapping[int, tuple[int, int, int]],
    texts: Mapping[int, str],
    opacity: float = 0.5,
    least: int = 320,
) -> np.ndarray:
    """The image, enlarged to `least` pixels or more, under its segments, with lines between them.

    Args:
      image: uint8 [h, w, 1 or 3].
      numbers: of the segment that each pixel is of, integers [h, w].
      colours: by number; segments without one leave the image as it is.
      texts: by number; each stands where its segment is widest, if there is room.
      opacity: of the colours.
      least: see `boxed`.
    """
    canvas = _enlarge(image, least)
    factor = canvas.width // image.shape[1]
    table = np.zeros((int(numbers.max(initial=0)) + 1, 3), np.uint8)
    coloured = np.zeros(len(table), bool)
    for number, colour in colours.items():
        if number < len(table):
            table[number], coloured[number] = colour, True
    large = numbers.repeat(factor, 0).repeat(factor, 1)
    mixed = np.array(Image.blend(canvas, Image.fromarray(table[large]), opacity))
    clear = ~coloured[large]
    mixed[clear] = np.asarray(canvas)[clear]
    line = np.zeros(large.shape, bool)
    line[1:] |= large[1:] != large[:-1]
    line[:, 1:] |= large[:, 1:] != large[:, :-1]
    side = max(1, canvas.width // 480)
    mixed[cv2.dilate(line.view(np.uint8), np.ones((side, side), np.uint8)) > 0] = 255
    canvas = Image.fromarray(mixed)
    draw, size = ImageDraw.Draw(canvas), max(11, canvas.width // 45)
    step = max(1, max(large.shape) // 512)  # where there is room shows in a small copy
    small = large[step // 2 :: step, step // 2 :: step]
    for number, text in texts.items():
        room = cv2.distanceTransform(np.pad(small == number, 1).view(np.uint8), cv2.DIST_L2, 3)
        row, column = np.unravel_index(room.argmax(), room.shape)
        if room[row, column] * step < size / 2:
            continue
        text = printable(text)
        font = font_for(text, size)
        wide = font.getlength(text) / 2 + 2
        x = min(max((column - 0.5) * step, wide), max(wide, canvas.width - wide))
        y = (row - 0.5) * step
        draw.text(
            (x, y), text, fill="white", font=font, anchor="mm", stroke_width=2, stroke_fill="black"
        )
    return np.asarray(canvas)


def captioned_grid(
    images: np.ndarray, captions: Sequence[str], wrong: Sequence[bool], columns: int = 4
) -> np.ndarray:
    """Images uint8 [n, h, w, c] in a grid, each over its caption, of which \\n ends lines; wrong
    ones in red.
    """
    pictures = [_enlarge(image, 160) for image in images]
    width, height = pictures[0].size
    paragraphs = [[printable(part) for part in caption.split("\n")] for caption in captions]
    fonts = [font_for(" ".join(parts), 13) for parts in paragraphs]
    texts = [
        [line for part in parts for line in wrapped(part, font, width - 2)]
        for parts, font in zip(paragraphs, fonts)
    ]
    columns = min(columns, len(pictures))
    lines = -(-len(pictures) // columns)
    step = height + _LINE * max(map(len, texts)) + 8
    canvas = Image.new("RGB", (columns * (width + 8), lines * step), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (picture, text, font, bad) in enumerate(zip(pictures, texts, fonts, wrong)):
        x, y = (index % columns) * (width + 8) + 4, (index // columns) * step + 4
        canvas.paste(picture, (x, y))
        for number, line in enumerate(text):
            place = (x, y + height + 1 + number * _LINE)
            draw.text(place, line, fill="#c00000" if bad else "black", font=font)
    return np.asarray(canvas)


def ranked(image: np.ndarray, names: Sequence[str], probabilities: Sequence[float]) -> np.ndarray:
    """An image uint8 [h, w, c] beside its likeliest classes, each over a bar of its probability."""
    picture, step, margin = _enlarge(image, 224), 36, 10
    texts = [f"{printable(name)} {p:.1%}" for name, p in zip(names, probabilities)]
    fonts = [font_for(text, 14) for text in texts]
    side = max(200, *(int(font.getlength(text)) for font, text in zip(fonts, texts)))
    height = max(picture.height, step * len(texts))
    canvas = Image.new("RGB", (picture.width + side + 3 * margin, height + 2 * margin), "white")
    canvas.paste(picture, (margin, margin))
    draw, x = ImageDraw.Draw(canvas), picture.width + 2 * margin
    for index, (text, probability) in enumerate(zip(texts, probabilities)):
        y = margin + index * step
        draw.text((x, y), text, fill="black", font=fonts[index])
        draw.rectangle((x, y + 20, x + side, y + 26), fill="#e8e8e8")
        if probability * side >= 1:
            draw.rectangle((x, y + 20, x + int(probability * side), y + 26), fill="#3465a4")
    return np.asarray(canvas)


def save_ranked(image: np.ndarray, classes: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Saves an image beside its likeliest classes, dicts with `name` and `probability`."""
    names, probabilities = ([one[key] for one in classes] for key in ("name", "probability"))
    Image.fromarray(ranked(image, names, probabilities)).save(path)


def rows(columns: Sequence[np.ndarray], class_names: Sequence[str]) -> np.ndarray:
    """Batches of pictures [n, h, w, 3] side by side, one row a sample, over a legend."""
    height = max(column.shape[1] for column in columns)
    padded = [
        np.pad(c, ((0, 0), (2, 2 + height - c.shape[1]), (2, 2), (0, 0)), constant_values=255)
        for c in columns
    ]
    body = np.concatenate([np.concatenate(row, axis=1) for row in zip(*padded)], axis=0)
    return np.asarray(_over_legend(_enlarge(body, 480), class_names, range(len(class_names))))


def _over_legend(
    picture: Image.Image, class_names: Sequence[str], shown: Sequence[int]
) -> Image.Image:
    colours = palette(len(class_names))
    places, x, y, width = [], 4, 4, picture.width
    for index in shown:
        name = printable(class_names[index])
        font = font_for(name, 13)
        needed = int(18 + font.getlength(name) + 12)
        if x + needed > picture.width and x > 4:
            x, y = 4, y + _LINE
        places.append((x, y, name, font, tuple(int(v) for v in colours[index])))
        x += needed
        width = max(width, x)
    canvas = Image.new("RGB", (width, picture.height + y + _LINE + 2), "white")
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for x, y, name, font, colour in places:
        top = picture.height + y
        draw.rectangle((x, top, x + 13, top + 13), fill=colour, outline="grey")
        draw.text((x + 18, top - 1), name, fill="black", font=font)
    return canvas
