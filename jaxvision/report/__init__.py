"""Reports: sections of text, tables, charts and pictures, and the one HTML file that they become.

A page is plain data (`page`), rendered by a pure function (`render`) to a file that opens without a
network. This package knows neither tasks nor runs: `jaxvision/tasks/<task>/report.py` and
`jaxvision/train/report.py` make the sections.
"""

from jaxvision.report import charts
from jaxvision.report.page import Chart, Figure, Gallery, Page, Part, Section, Table, Text
from jaxvision.report.render import LIMIT, render, utf8

__all__ = [
    "LIMIT",
    "Chart",
    "Figure",
    "Gallery",
    "Page",
    "Part",
    "Section",
    "Table",
    "Text",
    "charts",
    "render",
    "utf8",
]
