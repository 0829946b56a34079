"""Maps, matrices and gradients as colours, with NumPy and Pillow."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

from jaxvision.inspect.text import Font, font_for, printable
from jaxvision.metrics import ConfusionMatrix

# Viridis (van der Walt and Smith 2015, https://bids.github.io/colormap, CC0): equal steps look
# equal, in grey and to the colour-blind too.
_VIRIDIS = np.array(
    [
        (68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142),
        (31, 158, 137), (53, 183, 121), (110, 206, 88), (181, 222, 43), (253, 231, 37),
    ],
    np.float32,
)  # fmt: skip
# Magma, of the same: what is near zero stays dark.
_MAGMA = np.array(
    [
        (0, 0, 4), (24, 15, 62), (69, 16, 119), (114, 31, 129), (159, 47, 127),
        (205, 64, 113), (241, 96, 93), (253, 149, 103), (254, 202, 141), (252, 253, 191),
    ],
    np.float32,
)  # fmt: skip
# White to blue: dark text is read on the lower half, light text on the upper.
_BLUES = np.array(
    [(255, 255, 255), (222, 235, 247), (158, 202, 225), (66, 146, 198), (8, 81, 156), (8, 48, 107)],
    np.float32,
)
SCALES = {"viridis": _VIRIDIS, "magma": _MAGMA, "blues": _BLUES}


def colours(
    values: Float[np.ndarray, "*shape"], scale: str = "viridis"
) -> UInt8[np.ndarray, "*shape 3"]:
    """Values from 0 to 1 as colours; what is beyond has the colour of the end, NaN that of 0.

    Args:
      values: to show.
      scale: one of `SCALES`.
    """
    anchors = SCALES[scale]
    at = np.clip(np.nan_to_num(np.asarray(values, np.float32)), 0, 1) * (len(anchors) - 1)
    low = np.minimum(at.astype(int), len(anchors) - 2)
    part = (at - low)[..., None]
    return np.round((1 - part) * anchors[low] + part * anchors[low + 1]).astype(np.uint8)


def stretched(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Values from the least at 0 to the greatest at 1; all 0 where they are equal."""
    values = np.asarray(values, np.float32)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def gradient_picture(
    gradient: Float[np.ndarray, "h w c"], signed: bool = True
) -> UInt8[np.ndarray, "h w 3"]:
    """A gradient with respect to an image, scaled so that one value in 200 is cut off.

    Args:
      gradient: as `saliency` gives it.
      signed: in the image's own colours about middle grey; otherwise the greatest size over the
        channels, as Simonyan et al. 2013 draw it.
    """
    gradient = np.asarray(gradient, np.float32)
    largest = float(np.quantile(np.abs(gradient), 0.995)) or 1.0
    if not signed or gradient.shape[-1] not in (1, 3):
        return colours(np.abs(gradient).max(-1) / largest, "magma")
    shown = np.clip(0.5 + 0.5 * gradient / largest, 0, 1)
    shown = np.round(255 * shown).astype(np.uint8)
    return np.broadcast_to(shown, (*shown.shape[:2], 3)).copy()


def resized(
    picture: UInt8[np.ndarray, "h w 3"], size: Sequence[int], smooth: bool = False
) -> UInt8[np.ndarray, "i j 3"]:
    """A picture at another (height, width): its pixels as blocks, or interpolated."""
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    height, width = (int(side) for side in size)
    return np.asarray(Image.fromarray(np.asarray(picture)).resize((width, height), how))


def heat(
    image: UInt8[np.ndarray, "h w c"], values: Float[np.ndarray, "i j"], opacity: float = 0.6
) -> UInt8[np.ndarray, "h w 3"]:
    """An image in grey under a map in colours: the greater a value, the more it covers.

    Args:
      image: grey or in colour.
      values: from 0 to 1; enlarged to the image's size, as blocks.
      opacity: where the value is 1; half of it where it is 0.
    """
    grey = np.asarray(image, np.float32).mean(-1, keepdims=True)
    tall, wide = image.shape[:2]
    values = np.clip(np.asarray(values, np.float32), 0, 1)
    rows = np.arange(tall) * values.shape[0] // tall
    columns = np.arange(wide) * values.shape[1] // wide
    values = values[rows][:, columns]
    cover = opacity * (0.5 + 0.5 * values[..., None])
    return np.round((1 - cover) * grey + cover * colours(values)).astype(np.uint8)


def grid(
    tiles: UInt8[np.ndarray, "n h w 3"], columns: int = 0, gap: int = 1
) -> UInt8[np.ndarray, "i j 3"]:
    """Tiles side by side, row by row, on white.

    Args:
      tiles: of one size.
      columns: of the grid; 0 makes it about square.
      gap: pixels between tiles and around them.
    """
    count, height, width = tiles.shape[:3]
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, 3)
    canvas = np.full(shape, 255, np.uint8)
    for index, tile in enumerate(tiles):
        y = gap + (index // columns) * (height + gap)
        x = gap + (index % columns) * (width + gap)
        canvas[y : y + height, x : x + width] = tile
    return canvas


def confusion_matrix(
    matrix: ConfusionMatrix, percent: bool = False
) -> UInt8[np.ndarray, "height width 3"]:
    """A labelled heat map of true classes by predicted ones.

    Cells are coloured by their share of the true class. Above 60 classes they bear no numbers.

    Args:
      matrix: on the host or the device.
      percent: write shares of the true class, in percent, instead of counts.
    """
    counts: Int[np.ndarray, "k k"] = np.asarray(matrix.counts)
    classes = len(counts)
    names = list(map(printable, matrix.class_names)) or [str(index) for index in range(classes)]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    texts = [
        [f"{100 * share:.0f}" if percent else f"{int(count):,}" for share, count in zip(*row)]
        for row in zip(shares, counts)
    ]
    font = font_for("".join(names), 13)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    numbered = classes <= 60
    side = max(2, 900 // classes)
    if numbered:
        widest = max(measure.textlength(text, font) for row in texts for text in row)
        side = int(max(28, widest + 10))
    labelled = side >= 15
    margin = int(max(measure.textlength(name, font) for name in names)) + 12 if labelled else 4
    title = 24
    left, top = title + margin, title + margin
    canvas = Image.new("RGB", (left + classes * side + 8, top + classes * side + 8), "white")
    pen = ImageDraw.Draw(canvas)
    shades = colours(shares, "blues").repeat(side, 0).repeat(side, 1)
    if labelled:
        shades[::side] = shades[:, ::side] = 225
    canvas.paste(Image.fromarray(shades), (left, top))
    for row, column in np.ndindex(classes, classes) if numbered else ():
        if counts[row, column] or row == column:
            middle = (left + (column + 0.5) * side, top + (row + 0.5) * side)
            ink = "white" if shares[row, column] > 0.5 else "black"
            pen.text(middle, texts[row][column], fill=ink, font=font, anchor="mm")
    if labelled:
        for index, name in enumerate(names):
            at = index * side + side / 2
            pen.text((left - 6, top + at), name, fill="black", font=font, anchor="rm")
            _upright(canvas, name, (int(left + at), top - 6), font)
    across = (left + classes * side / 2, 4)
    pen.text(across, "predicted class", fill="grey", font=font, anchor="ma")
    _upright(canvas, "true class", (12, int(top + classes * side / 2)), font, "grey", centre=True)
    return np.asarray(canvas)


def _upright(
    canvas: Image.Image,
    text: str,
    place: tuple[int, int],
    font: Font,
    fill: str = "black",
    centre: bool = False,
) -> None:
    """Text that runs upwards, from its end at `place`, or centred there."""
    length = int(ImageDraw.Draw(canvas).textlength(text, font)) + 2
    strip = Image.new("RGB", (length, 18), "white")
    ImageDraw.Draw(strip).text((0, 9), text, fill=fill, font=font, anchor="lm")
    turned = strip.rotate(90, expand=True)
    y = place[1] - length // 2 if centre else place[1] - length
    canvas.paste(turned, (place[0] - 9, max(0, y)))
