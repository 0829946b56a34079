"""Writes the tables of networks in docs/networks.md and docs/models.md.

    python tests/parity/table.py [--check]

Everything in them is computed: parameters and multiply-adds by `jaxvision.inspect`, deviations from
the references by running every case against its golden file, published weights from the registry's
table. `--check` only says which networks are on no page of docs.
"""

import argparse
import re
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))
from parity.cases import CASES, FAMILIES, variant
from parity.compare import deviation

from jaxvision import models
from jaxvision.inspect import layers, totals
from jaxvision.interop.published import published

MARKS = "<!-- table of networks: python tests/parity/table.py -->", "<!-- end of the table -->"


def short(count: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:g}"


def classes_of(family) -> int:
    return getattr(family, "CLASSES", 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if a network is not listed")
    if parser.parse_args().check:
        text = "".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
        missing = [name for name in models.names() if f"`{name}`" not in text]
        sys.exit(f"On no page of docs: {', '.join(missing)}" if missing else 0)
    found = {}
    for name in CASES:
        found[name] = deviation(name)
        jax.clear_caches()
        print(f"{name}: {found[name]:.1e}", flush=True)
    whole = {}
    for family in FAMILIES:
        for name in family.PARAMETERS:
            entry = models.variant(name)
            whole[name] = totals(layers(models.create(name, classes_of(family)), entry.input_shape))
            print(f"{name}: {whole[name].parameters:,}", flush=True)
    write(ROOT / "docs" / "networks.md", summary(found, whole))
    write(ROOT / "docs" / "models.md", every(found, whole))


def link(paper: str) -> str:
    text, _, address = paper.rpartition(", ")
    return f"[{text}]({address})" if text else paper


def summary(found, whole) -> list[str]:
    """One line for each module of networks."""
    lines = [
        "| networks | paper | parameters | multiply-adds | equal to | deviation | weights |",
        "|---|---|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        names = list(family.PARAMETERS)
        shown = names if len(names) <= 6 else [*names[:5], f"... ({len(names)})"]
        papers = dict.fromkeys(link(models.variant(name).paper) for name in names)
        packages = dict.fromkeys(
            re.split(r"[ (]", models.variant(name).reference)[0] for name in names
        )
        files = sum(len(published(name)) for name in names)
        lines.append(
            "| "
            + " | ".join(
                [
                    ", ".join(f"`{n}`" if not n.startswith("...") else n for n in shown),
                    "; ".join(papers),
                    span([whole[name].parameters for name in names]),
                    span([whole[name].multiply_adds for name in names]),
                    ", ".join(packages),
                    f"{max(found[case] for case in family.CASES):.0e}",
                    str(files or ""),
                ]
            )
            + " |"
        )
    return lines


def span(counts: list[int]) -> str:
    low, high = short(min(counts)), short(max(counts))
    return low if low == high else f"{low} to {high}"


def every(found, whole) -> list[str]:
    """One line for each network."""
    lines = [
        "| network | input | parameters | multiply-adds | equal to | deviation | weights |",
        "|---|---|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        for name in family.PARAMETERS:
            entry = models.variant(name)
            cases = [found[case] for case in family.CASES if variant(case) == name]
            tags = ", ".join(f"`{tag}`" for tag in published(name))
            lines.append(
                f"| `{name}` | {'x'.join(map(str, entry.input_shape))} "
                f"| {whole[name].parameters:,} | {short(whole[name].multiply_adds)} "
                f"| {entry.reference} | {f'{max(cases):.0e}' if cases else ''} | {tags} |"
            )
    return lines


def write(path: Path, lines: list[str]) -> None:
    """Puts the table between its marks."""
    text, (begin, end) = path.read_text(), MARKS
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"{path} has no marks for the table: {begin}")
    table = "\n".join([begin, *lines, end])
    path.write_text(pattern.sub(lambda _: table, text))
    print(f"Wrote {len(lines) - 2} lines to {path}")


if __name__ == "__main__":
    main()
