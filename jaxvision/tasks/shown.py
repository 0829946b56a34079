"""What a person is shown of one prediction, as plain data: parts that a page draws.

`shown(task, prediction)` of a task's report gives parts, in the order in which they are looked at.
Whoever draws them (`jaxvision.serve`) knows the parts and no task. All places are in pixels of the
photograph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxvision.inspect import draw

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Bars:
    """Classes with their probabilities, the likeliest first.

    Attributes:
      names: of the classes.
      values: from 0 to 1.
      found: which of them are said to be there; () where that is not said.
    """

    names: Sequence[str]
    values: Sequence[float]
    found: Sequence[bool] = ()


@dataclass(frozen=True)
class Entry:
    """A line of a legend."""

    name: str
    colour: Colour
    text: str = ""


@dataclass(frozen=True)
class Overlay:
    """Colours that are laid over the photograph.

    Attributes:
      title: what they are.
      image: the last channel says where they are, of the photograph's height and width.
      legend: what the colours mean.
      grey: whether the photograph loses its own colours below.
    """

    title: str
    image: UInt8[np.ndarray, "h w 4"]
    legend: Sequence[Entry] = ()
    grey: bool = False


@dataclass(frozen=True)
class Item:
    """An object.

    Attributes:
      name: what it is.
      colour: that it is drawn in.
      score: how sure that is.
      box: (x0, y0, x1, y1).
      mask: its pixels, cut out, and the (top, left) of the cut.
      points: (x, y, score) of each of its key points.
    """

    name: str
    colour: Colour
    score: float | None = None
    box: Float[np.ndarray, "4"] | None = None
    mask: tuple[Bool[np.ndarray, "_ _"], tuple[int, int]] | None = None
    points: Float[np.ndarray, "k 3"] | None = None


@dataclass(frozen=True)
class Objects:
    """Objects, the surest first.

    Attributes:
      items: those that could be shown.
      threshold: the score from which one is, or one of its key points where items have no score;
        None shows all.
      limbs: key points that a line joins, with its colour.
      point_names, point_colours: of key points.
    """

    items: Sequence[Item]
    threshold: float | None = None
    limbs: Sequence[tuple[int, int, Colour]] = ()
    point_names: Sequence[str] = ()
    point_colours: Sequence[Colour] = ()


@dataclass(frozen=True)
class Pictures:
    """Pictures uint8 [h, w, 1 or 3] beside each other, with what each is."""

    images: Sequence[tuple[np.ndarray, str]]


@dataclass(frozen=True)
class Words:
    """A sentence that is said word by word.

    Attributes:
      words: in their order.
      maps: where each looked at, colours as of an `Overlay`; () where that is not known.
    """

    words: Sequence[str]
    maps: Sequence[UInt8[np.ndarray, "h w 4"]] = ()


@dataclass(frozen=True)
class Numbers:
    """What is said in numbers: a name and a text each."""

    values: Sequence[tuple[str, str]]


Shown = Bars | Overlay | Objects | Pictures | Words | Numbers


def likeliest(names: Sequence[str], probabilities: Float[np.ndarray, " k"], top: int) -> Bars:
    """The `top` likeliest classes."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return Bars([names[i] for i in order], [float(probabilities[i]) for i in order])


def label_colours(
    labels: Int[np.ndarray, "h w"], table: UInt8[np.ndarray, "n 3"], clear: Sequence[int] = ()
) -> UInt8[np.ndarray, "h w 4"]:
    """The colours of a label map; what is clear, or not in the table, leaves the photograph."""
    whole = np.zeros((len(table) + 1, 4), np.uint8)
    whole[:-1, :3], whole[:-1, 3] = table, 255
    whole[[k for k in clear if k < len(table)], 3] = 0
    return whole[np.minimum(labels, len(table))]


def heat(prediction: Any, values: Float[np.ndarray, "i j"]) -> UInt8[np.ndarray, "h w 4"]:
    """A map of what the network was given, on the photograph: the greater, the more it covers.

    What the network was not given stays clear.

    Args:
      prediction: a `Prediction`.
      values: from 0 to 1, of places of the network's image, perhaps coarser.
    """
    height, width = prediction.network_image.shape[:2]
    smooth = cv2.resize(
        np.asarray(values, np.float32), (width, height), interpolation=cv2.INTER_LINEAR
    )
    whole = prediction.geometry.restore_labels(np.clip(smooth, 0, 1) * 254 + 1, fill=0)
    level = np.round(whole).astype(np.uint8)  # 0 is not seen
    table = np.zeros((256, 4), np.uint8)
    steps = np.arange(255) / 254
    table[1:, :3], table[1:, 3] = draw.colours(steps), np.round(255 * (0.35 + 0.65 * steps))
    return table[level]
