"""Charts as specifications of Vega-Lite (Satyanarayan et al. 2017), which the page draws.

https://doi.org/10.1109/TVCG.2016.2599030. Data stand in the specification; nothing is loaded.
Colours come from the page, which knows whether it is dark.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxvision.report.page import Chart

_POINTS = 600  # of one curve; of more, evenly spaced ones are shown
_NAMED = 16  # curves that a legend can tell apart

Points = Sequence[tuple[float, float | None]]


def curves(
    title: str,
    series: Mapping[str, Points],
    *,
    x: str = "step",
    y: str = "",
    marked: float | None = None,
    marking: str = "best",
    unit: bool = False,
) -> Chart:
    """Lines over x, with the numbers of the nearest point on demand.

    Args:
      title: above the chart.
      series: (x, y) of each line by its name; y of None or not finite is left out.
      x, y: names of the axes.
      marked: an x with a line through it.
      marking: what it is called.
      unit: both axes go from 0 to 1.
    """
    rows = []
    for name, points in list(series.items())[:_NAMED]:
        known = [(a, b) for a, b in points if b is not None and math.isfinite(b)]
        rows += [{"x": short(a), "y": short(b), "of": name} for a, b in thinned(known)]
    axis: dict[str, Any] = {"scale": {"domain": [0, 1]}} if unit else {"scale": {"zero": False}}
    encoding: dict[str, Any] = {
        "x": {"field": "x", "type": "quantitative", "title": x, **axis},
        "y": {"field": "y", "type": "quantitative", "title": y or title, **axis},
        "color": {"field": "of", "type": "nominal", "title": None, "sort": list(series)},
        "strokeDash": {"field": "of", "type": "nominal", "title": None, "sort": list(series)},
        "tooltip": [
            {"field": "of", "title": " "},
            {"field": "x", "title": x, "format": ",.6~r"},
            {"field": "y", "title": y or title, "format": ".5~g"},
        ],
        "opacity": {"condition": {"param": "chosen", "value": 1}, "value": 0.12},
    }
    if len(series) == 1:
        for channel in ("color", "strokeDash"):
            encoding[channel] = {**encoding[channel], "legend": None}
    few = max(map(len, series.values()), default=0) <= 60
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "line", "point": few, "interpolate": "linear"},
            "encoding": encoding,
            "params": [
                {
                    "name": "chosen",
                    "select": {"type": "point", "fields": ["of"]},
                    "bind": "legend",
                }
            ],
        }
    ]
    if marked is not None:
        layers.append(
            {
                "data": {"values": [{"x": marked, "text": f"{marking}: {x} {short(marked):g}"}]},
                "mark": {"type": "rule", "strokeDash": [5, 4], "size": 1.5},
                "encoding": {
                    "x": {"field": "x", "type": "quantitative"},
                    "tooltip": {"field": "text", "title": " "},
                },
            }
        )
    spec = {"data": {"values": rows}, "layer": layers, "height": 240}
    return Chart(spec, title, _described(title, series, marked, marking, x))


def _described(
    title: str, series: Mapping[str, Points], marked: float | None, marking: str, x: str
) -> str:
    parts = []
    for name, points in series.items():
        known = [b for _, b in points if b is not None and math.isfinite(b)]
        if known:
            parts.append(
                f"{name} from {known[0]:.4g} to {known[-1]:.4g}, least {min(known):.4g}, "
                f"greatest {max(known):.4g}"
            )
    text = f"{title} over {x}: " + ("; ".join(parts[:6]) or "no values")
    if marked is not None:
        text += f"; {marking} at {x} {short(marked):g}"
    return text


def heatmap(
    title: str,
    counts: np.ndarray,
    names: Sequence[str],
    columns: Sequence[str] | None = None,
    *,
    rows: str = "true",
    found: str = "found",
) -> Chart:
    """A matrix, coloured by the share of its row.

    Args:
      title: above the chart.
      counts: integers [n, m].
      names, columns: of rows and columns, alike by default.
      rows, found: what rows and columns are.
    """
    columns = names if columns is None else columns
    counts = np.asarray(counts)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # Places, not names, are the keys: two classes may have one name.
    values = [
        {"r": i, "c": j, "n": int(counts[i, j]), "s": short(share[i, j]), "a": a, "b": b}
        for i, a in enumerate(names)
        for j, b in enumerate(columns)
        if counts[i, j]
    ]
    labels = "[" + ",".join(_quoted(_cut(name)) for name in names) + "][datum.value]"
    across = "[" + ",".join(_quoted(_cut(name)) for name in columns) + "][datum.value]"

    def axis(field: str, name: str, texts: str, size: int, **more: Any) -> dict[str, Any]:
        return {
            "field": field,
            "type": "ordinal",
            "title": name,
            "scale": {"domain": list(range(size))},
            "axis": {"labelExpr": texts, "labelOverlap": True, **more},
        }

    wide = len(columns) > 10 or max(map(len, columns), default=0) > 4
    place = {
        "y": axis("r", rows, labels, len(names)),
        "x": axis("c", found, across, len(columns), labelAngle=-45 if wide else 0),
    }
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "rect"},
            "encoding": {
                **place,
                "color": {
                    "field": "s",
                    "type": "quantitative",
                    "title": f"share of the {rows}",
                    "scale": {"domain": [0, 1], "scheme": "blues"},
                    "legend": {"format": ".0%", "orient": "bottom", "gradientLength": 120},
                },
                "tooltip": [
                    {"field": "a", "title": rows},
                    {"field": "b", "title": found},
                    {"field": "n", "title": "count", "format": ","},
                    {"field": "s", "title": "share", "format": ".1%"},
                ],
            },
        }
    ]
    if len(columns) <= 12:
        ink = {"condition": {"test": "datum.s > 0.5", "value": "white"}, "value": "#223"}
        layers.append(
            {
                "mark": {"type": "text", "fontSize": 11},
                "encoding": {**place, "text": {"field": "n", "format": ","}, "color": ink},
            }
        )
    spec = {
        "data": {"values": values},
        "layer": layers,
        "height": min(900, max(180, 28 * len(names))),
    }
    total, right = int(counts.sum()), int(np.trace(counts))
    return Chart(
        spec, title, f"{title}: {total:,} counted, {right:,} of them on the diagonal of {rows} "
        f"and {found}"
    )  # fmt: skip


def bars(
    title: str, values: Mapping[str, float | None], *, value: str, percent: bool = False
) -> Chart:
    """Horizontal bars, in their order.

    Args:
      title: above the chart.
      values: by name; None has no bar.
      value: what they are.
      percent: whether 1 is all.
    """
    rows = [
        {"i": place, "name": name, "v": short(number)}
        for place, (name, number) in enumerate(values.items())
        if number is not None and math.isfinite(number)
    ]
    texts = "[" + ",".join(_quoted(_cut(name)) for name in values) + "][datum.value]"
    spec = {
        "data": {"values": rows},
        "mark": {"type": "bar"},
        "encoding": {
            "y": {
                "field": "i",
                "type": "ordinal",
                "title": None,
                "scale": {"domain": list(range(len(values)))},
                "axis": {"labelExpr": texts},
            },
            "x": {
                "field": "v",
                "type": "quantitative",
                "title": value,
                **({"axis": {"format": ".0%"}} if percent else {}),
            },
            "tooltip": [{"field": "name", "title": " "}, {"field": "v", "title": value}],
        },
        "height": 22 * max(1, len(values)),
    }
    known = {row["name"]: row["v"] for row in rows}
    most = ", ".join(f"{name} {number:.4g}" for name, number in list(known.items())[:8])
    return Chart(spec, title, f"{title}, {value}: {most or 'no values'}")


def short(number: Any) -> Any:
    """A number of five significant digits; whole ones are kept."""
    if isinstance(number, (int, np.integer)):
        return int(number)
    return float(f"{float(number):.5g}") if abs(number) < 1e5 else float(number)


def thinned(points: Sequence[Any], most: int = _POINTS) -> Sequence[Any]:
    """At most so many of the points, evenly spaced, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[int(place)] for place in np.linspace(0, len(points) - 1, most).round()]


def _cut(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _quoted(name: str) -> str:
    """A text of Vega's expression language, from which nothing that is in the name can break out.

    Every character but letters and digits of ASCII is written as its code.
    """
    units = name.encode("utf-16-be", "surrogatepass")
    codes = [int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2)]
    plain = [chr(c) if c < 128 and chr(c).isalnum() else f"\\u{c:04x}" for c in codes]
    return '"' + "".join(plain) + '"'
