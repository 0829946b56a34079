"""Show a network layer by layer: shapes, parameters, multiply-adds, memory, receptive fields."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvision.errors import UserError

if TYPE_CHECKING:
    from jaxvision.inspect import Layer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a name of `jaxvision info models`")
    parser.add_argument("--size", metavar="HxW", help="image size (default: the published one)")
    parser.add_argument("--channels", type=int, help="of the image (default: the published ones)")
    parser.add_argument("--classes", type=int, default=1000, help="default 1000")
    parser.add_argument("--features", action="store_true", help="only up to the feature pyramid")
    parser.add_argument("--csv", metavar="FILE", help="also write the table there")
    parser.add_argument("--html", metavar="FILE", help="also write it as a page")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from jaxvision import models
    from jaxvision.inspect import layers, totals
    from jaxvision.inspect.cells import COLUMNS, cells
    from jaxvision.train.writers import write_atomically

    if overrides:
        raise UserError("inspect takes no --config.KEY.")
    entry = models.variant(options.model)
    *size, channels = entry.input_shape
    if options.size:
        size = _size(options.size, len(size))
    shape = (*size, options.channels or channels)
    more = {"features_only": True} if options.features else {}
    classes = None if entry.inputs[0] == "image" and not entry.ends else options.classes
    lines = layers(models.create(options.model, classes, **more), shape)
    rows = [cells(line) for line in [*lines, totals(lines)]]
    table = Table(*COLUMNS, title=f"{options.model}, one image of {'x'.join(map(str, shape))}")
    for column in table.columns[2:]:
        column.justify = "right"
    for row in rows[:-1]:
        table.add_row(*row)
    table.add_section()
    table.add_row(*rows[-1], style="bold")
    console = Console()
    # A file or a pipe has no edge at which numbers would have to be cut.
    (console if console.is_terminal else Console(width=160)).print(table)
    if options.csv:
        write_atomically(Path(options.csv), to_csv([*lines, totals(lines)]))
        print(f"Wrote {options.csv}")
    if options.html:
        write_atomically(Path(options.html), to_html(str(table.title), rows))
        print(f"Wrote {options.html}")


def _size(text: str, axes: int) -> list[int]:
    parts = text.split("x")
    if len(parts) in (1, axes) and all(part.isdigit() and int(part) for part in parts):
        return [int(part) for part in (parts * axes if len(parts) == 1 else parts)]
    form = "HEIGHTxWIDTH" if axes == 2 else "DEPTHxHEIGHTxWIDTH"
    raise UserError(f"--size is {form} or one number, not {text!r}.")


def to_csv(lines: "list[Layer]") -> str:
    """The table as comma-separated values; memory in bytes."""
    import csv
    import io

    from jaxvision.inspect.cells import COLUMNS, cells

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for line in lines:
        row = cells(line)
        writer.writerow(
            [*row[:3], line.parameters, line.multiply_adds, line.memory, *row[6:]],
        )
    return text.getvalue()


def to_html(title: str, rows: list[list[str]]) -> str:
    """The table as one page without scripts."""
    from html import escape

    from jaxvision.inspect.cells import COLUMNS

    def line(row: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 2px 10px; text-align: right; border-bottom: 1px solid #ddd; }}
th:nth-child(-n+2), td:nth-child(-n+2) {{ text-align: left; }}
th {{ position: sticky; top: 0; background: #fff; }}
tr:last-child {{ font-weight: bold; }}
</style>
<h1>{escape(title)}</h1>
<table>
<thead>{line(list(COLUMNS), "th")}</thead>
<tbody>
{body}
</tbody>
</table>
</html>
"""
