"""What a report is made of: plain data, which `jaxvision.report.render` makes a page of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Cell = str | int | float | None


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table, which a reader sorts by any column.

    Attributes:
      columns: their names.
      rows: a cell for each column; numbers are aligned and rounded, None is a dash.
      caption: what the table says.
      folded: whether it is shown only when asked for.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
      spec: of Vega-Lite, its data in it; see `jaxvision.report.charts`.
      title: above the chart.
      description: what it shows, for who cannot see it.
    """

    spec: Mapping[str, Any]
    title: str
    description: str


@dataclass(frozen=True)
class Figure:
    """A picture with its caption.

    Attributes:
      image: uint8 [h, w, 1 or 3].
      caption: below it.
      alt: what it shows, for who cannot see it; the caption by default.
      tags: by which a reader finds it among others.
      wrong: whether it shows a mistake.
    """

    image: np.ndarray
    caption: str
    alt: str = ""
    tags: Sequence[str] = ()
    wrong: bool = False


@dataclass(frozen=True)
class Gallery:
    """Pictures, the most important first: where a page grows too large, it lacks the last ones.

    Attributes:
      figures: see above.
      title: above them.
      filter: what the tags are, "class" for one; "" where there is nothing to choose from.
    """

    figures: Sequence[Figure]
    title: str
    filter: str = ""


Part = Text | Table | Chart | Gallery


@dataclass(frozen=True)
class Section:
    """A heading and what is below it.

    Attributes:
      title: the heading.
      parts: from top to bottom.
    """

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
      title: the heading of the page.
      lead: a line below it.
      figures: the few numbers that matter most, by name.
      sections: from top to bottom; those without parts are left out.
    """

    title: str
    lead: str = ""
    figures: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = ()
