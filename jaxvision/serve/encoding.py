"""What is shown of a prediction as JSON: parts by their `kind`, pictures as data URLs."""

import base64
import io
import math
import re
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

from jaxvision.tasks import shown
from jaxvision.tasks.pictures import as_colour

_SIDE = 1600  # the longest of a picture in pixels
_EXACT = 512  # up to which nothing is lost by JPEG
_QUALITY = 90
_MAP = 256  # the longest side of where a word looked, one of many


def part(one: shown.Shown) -> dict[str, Any]:
    """A part for the page; places stay in pixels of the photograph."""
    return _PARTS[type(one)](one)


def picture(image: UInt8[np.ndarray, "h w c"]) -> dict[str, Any]:
    """A picture: `url`, and its own `width` and `height` even where the URL's is smaller.

    Args:
      image: grey, in colours, or in colours with opacity.
    """
    height, width = image.shape[:2]
    small = shrunk(image, _SIDE, exact=image.shape[-1] == 4)
    if max(small.shape[:2]) <= _EXACT or small.shape[-1] == 4:
        content, kind = _png(small), "png"
    else:
        colours = np.ascontiguousarray(as_colour(small))
        content, kind = simplejpeg.encode_jpeg(colours, quality=_QUALITY), "jpeg"
    url = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"url": url, "width": width, "height": height}


def shrunk(image: UInt8[np.ndarray, "h w c"], side: int, exact: bool = False) -> np.ndarray:
    """The image with its longest side at most `side`, averaged or (`exact`) with its own values."""
    height, width = image.shape[:2]
    if max(height, width) <= side:
        return image
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    how = cv2.INTER_NEAREST if exact else cv2.INTER_AREA
    return cv2.resize(image, size, interpolation=how).reshape(size[1], size[0], image.shape[-1])


def _png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    flat = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(flat).save(content, "PNG", compress_level=4)
    return content.getvalue()


def _overlay(one: shown.Overlay) -> dict[str, Any]:
    legend = [
        {"name": entry.name, "colour": _css(entry.colour), "text": entry.text}
        for entry in one.legend
    ]
    return {
        "kind": "overlay",
        "title": one.title,
        "picture": picture(one.image),
        "legend": legend,
        "grey": one.grey,
    }


def _bars(one: shown.Bars) -> dict[str, Any]:
    found: list[Any] = list(one.found) or [None] * len(one.names)
    each = zip(one.names, one.values, found, strict=True)
    rows = [{"name": name, "value": value, "found": there} for name, value, there in each]
    return {"kind": "bars", "rows": rows}


def _objects(one: shown.Objects) -> dict[str, Any]:
    return {
        "kind": "objects",
        "items": [_item(item) for item in one.items],
        "threshold": one.threshold,
        "limbs": [[first, second, _css(colour)] for first, second, colour in one.limbs],
        "point_names": list(one.point_names),
        "point_colours": [_css(colour) for colour in one.point_colours],
    }


def _item(item: shown.Item) -> dict[str, Any]:
    mask = None
    if item.mask is not None and item.mask[0].size:
        crop, (top, left) = item.mask
        whole = np.zeros((*crop.shape, 4), np.uint8)
        whole[crop] = (*item.colour, 255)
        mask = {**picture(whole), "left": left, "top": top}
    return {
        "name": item.name,
        "colour": _css(item.colour),
        "score": item.score,
        "box": _rounded(item.box),
        "mask": mask,
        "points": _rounded(item.points),
    }


def _pictures(one: shown.Pictures) -> dict[str, Any]:
    each = [{**picture(image), "caption": caption} for image, caption in one.images]
    return {"kind": "pictures", "pictures": each}


def _words(one: shown.Words) -> dict[str, Any]:
    maps = [picture(shrunk(image, _MAP, exact=True)) for image in one.maps]
    return {"kind": "words", "words": list(one.words), "maps": maps}


def _numbers(one: shown.Numbers) -> dict[str, Any]:
    return {"kind": "numbers", "values": [list(value) for value in one.values]}


_PARTS: dict[type, Callable[[Any], dict[str, Any]]] = {
    shown.Bars: _bars,
    shown.Overlay: _overlay,
    shown.Objects: _objects,
    shown.Pictures: _pictures,
    shown.Words: _words,
    shown.Numbers: _numbers,
}


def _css(colour: shown.Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(value) for value in colour))


def _rounded(values: np.ndarray | None) -> Any:
    return None if values is None else np.round(np.asarray(values, np.float64), 3).tolist()


def finite(value: Any) -> Any:
    """JSON-able values with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


_PLACE = re.compile(r"(?:[A-Za-z]:\\|(?<![\w<>.])~?/)[^\s'\"]*[^\s'\":;,.]")


def without_places(text: str) -> str:
    """A message without absolute names of files, which say nothing to whoever looks at a page."""
    return _PLACE.sub("(a file)", text)
