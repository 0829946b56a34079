"""A page as one HTML file that opens without a network.

Vega, Vega-Lite and Vega-Embed stand in the file (`assets/vendored.json` says which). A policy in
its head lets the browser load nothing and run nothing but the scripts that stand there, known by
their hashes: so a class called `<script>` is a name even if it were not escaped, and it is.
"""

import base64
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any

from jaxvision.report.images import encoded
from jaxvision.report.page import Cell, Chart, Figure, Gallery, Page, Part, Section, Table, Text

LIMIT = 5_000_000  # bytes of a page
_ROWS = 1000  # of a table
_CELL = 300  # characters

_LIBRARIES = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js")


def render(page: Page, limit: int = LIMIT) -> str:
    """The HTML of a page, of at most `limit` bytes: pictures shrink, and the last ones go.

    Args:
      page: see `jaxvision.report.page`.
      limit: 1.5 MB and more; the libraries for charts take 0.8 of it.
    """
    sections = [section for section in page.sections if section.parts]
    galleries = [p for s in sections for p in s.parts if isinstance(p, Gallery)]
    figures = [figure for gallery in galleries for figure in gallery.figures]
    blank = _document(page, sections, iter([" "] * len(figures)))
    budget = limit - len(utf8(blank)) - 10_000
    uris = encoded([figure.image for figure in figures], budget)
    return _document(page, sections, iter(uris))


def utf8(html: str) -> bytes:
    """The bytes of a page; half characters, which names of files may have, are replaced."""
    return html.encode("utf-8", "replace")


def _document(page: Page, sections: Sequence[Section], uris: Any) -> str:
    scripts = _scripts()
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )
    links = "".join(
        f'<li><a href="#s{place}">{_text(section.title)}</a></li>'
        for place, section in enumerate(sections)
    )
    tiles = "".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in page.figures
    )
    body = "\n".join(_section(place, section, uris) for place, section in enumerate(sections))
    loaded = "\n".join(f"<script>{script}</script>" for script in scripts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{_text(page.title)}</title>
<style>{_asset("report.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<h1>{_text(page.title)}</h1>
<p>{_text(page.lead)}</p>
{f'<dl class="tiles">{tiles}</dl>' if tiles else ""}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main id="main" tabindex="-1">
<noscript><p>Charts need JavaScript; all else does without.</p></noscript>
{body}
</main>
{loaded}
</body>
</html>
"""


def _section(place: int, section: Section, uris: Any) -> str:
    numbered = enumerate(section.parts)
    parts = []
    for side_by_side, group in itertools.groupby(numbered, lambda p: isinstance(p[1], Chart)):
        inner = "\n".join(_part(f"s{place}p{number}", part, uris) for number, part in group)
        parts.append(f'<div class="charts">{inner}</div>' if side_by_side else inner)
    body = "\n".join(parts)
    return (
        f'<section id="s{place}" aria-labelledby="h{place}">'
        f'<h2 id="h{place}">{_text(section.title)}</h2>\n{body}\n</section>'
    )


def _part(name: str, part: Part, uris: Any) -> str:
    if isinstance(part, Text):
        return f"<p>{_text(part.text)}</p>"
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Chart):
        return _chart(name, part)
    return _gallery(name, part, uris)


def _table(table: Table) -> str:
    numeric = [
        all(isinstance(row[place], (int, float, type(None))) for row in table.rows)
        for place in range(len(table.columns))
    ]
    kinds = ['class="n"' if is_number else "" for is_number in numeric]
    head = "".join(
        f'<th scope="col" {kind}><button type="button">{_text(name)}</button></th>'
        for name, kind in zip(table.columns, kinds)
    )
    lines = []
    for row in table.rows[:_ROWS]:
        cells = [f'<th scope="row" {kinds[0]} {_value(row[0])}>{_cell(row[0])}</th>']
        cells += [f"<td {k} {_value(c)}>{_cell(c)}</td>" for c, k in zip(row[1:], kinds[1:])]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    left = len(table.rows) - len(lines)
    more = f"<p>{left:,} more rows are left out.</p>" if left else ""
    caption = _text(table.caption or "Table")
    inner = (
        f'<div class="wide" role="region" aria-label="{caption}" tabindex="0"><table>'
        f"<caption>{_text(table.caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>{more}"
    )
    if not table.folded:
        return inner
    return f"<details><summary>{caption}</summary>{inner}</details>"


def _value(cell: Cell) -> str:
    """What a column is sorted by, where that is not the text."""
    if isinstance(cell, (int, float)) and not math.isnan(cell):
        return f'data-v="{cell!r}"'
    return ""


def _cell(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "–"
    if isinstance(cell, str):
        return _text(cell if len(cell) <= _CELL else cell[:_CELL] + " …")
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.4g}"


def _chart(name: str, chart: Chart) -> str:
    spec = {**chart.spec, "description": chart.description}
    # "<" and "&" are never in the text, so that it neither ends the element nor begins a comment.
    content = json.dumps(spec, separators=(",", ":"), allow_nan=False)
    content = content.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return (
        f'<figure class="chart"><figcaption id="{name}t">{_text(chart.title)}</figcaption>'
        f'<div id="{name}" data-chart="{name}d" role="img" aria-labelledby="{name}t" '
        f'aria-description="{_text(chart.description)}"></div>'
        f'<script type="application/json" id="{name}d">{content}</script></figure>'
    )


def _gallery(name: str, gallery: Gallery, uris: Any) -> str:
    shown = [(figure, uri) for figure in gallery.figures if (uri := next(uris))]
    left = len(gallery.figures) - len(shown)
    more = f"<p>{left} more are left out, for the page's size.</p>" if left else ""
    choice = _choice(name, gallery, [figure for figure, _ in shown]) if gallery.filter else ""
    items = "".join(_figure(figure, uri) for figure, uri in shown)
    return (
        f'<h3 id="{name}t">{_text(gallery.title)}</h3>{choice}'
        f'<div class="gallery" id="{name}" role="group" aria-labelledby="{name}t">{items}</div>'
        f"{more}"
    )


def _choice(name: str, gallery: Gallery, figures: Sequence[Figure]) -> str:
    counts: dict[str, int] = {}
    for figure in figures:
        for tag in figure.tags:
            counts[tag] = counts.get(tag, 0) + 1
    options = "".join(
        f'<option value="{_text(tag)}">{_text(tag[:60])} ({count})</option>'
        for tag, count in sorted(counts.items())
    )
    total = len(figures)
    wrong = ""
    if 0 < sum(figure.wrong for figure in figures) < total:
        wrong = (
            f'<label><input type="checkbox" data-wrong="{name}" autocomplete="off"> '
            "mistakes only</label>"
        )
    return (
        f'<p class="filter"><label for="{name}f">{_text(gallery.filter.capitalize())}</label> '
        f'<select id="{name}f" data-filter="{name}" autocomplete="off">'
        f'<option value="">all ({total})</option>{options}</select> {wrong} '
        f'<output for="{name}f" id="{name}o" aria-live="polite">{total} of {total} shown</output>'
        "</p>"
    )


def _figure(figure: Figure, uri: str) -> str:
    height, width = figure.image.shape[:2]
    tags = escape(json.dumps([_plain(tag) for tag in figure.tags]))
    kind = ' class="wrong"' if figure.wrong else ""
    sharp = ' class="sharp"' if max(height, width) <= 64 else ""
    mark = '<span class="mark">mistake: </span>' if figure.wrong else ""
    alt = _text(figure.alt or figure.caption)
    return (
        f'<figure data-tags="{tags}"{kind}><img src="{uri}" alt="{alt}"'
        f' width="{width}" height="{height}"{sharp} decoding="async">'
        f"<figcaption>{mark}{_text(figure.caption)}</figcaption></figure>"
    )


def _text(text: str) -> str:
    """Text as it may stand between tags and within quotes."""
    return escape(_plain(text))


def _plain(text: str) -> str:
    """The text with spaces for what cannot be seen."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


@functools.cache
def _asset(name: str) -> str:
    return (resources.files("jaxvision.report") / "assets" / name).read_text("utf-8")


@functools.cache
def _scripts() -> tuple[str, ...]:
    """The libraries, each below its licence and without the place of its source map, and ours."""
    about = json.loads(_asset("vendored.json"))
    found = []
    for name in _LIBRARIES:
        licence = _asset(about[name]["licence"]).replace("*/", "* /")
        head = f"{about[name]['package']} {about[name]['version']}"
        lines = _asset(name).split("\n")
        code = "\n".join(line for line in lines if not line.startswith("//# sourceMappingURL"))
        found.append(f"/* {head}\n{licence}*/\n{code}")
    return (*found, _asset("report.js"))


@functools.cache
def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
