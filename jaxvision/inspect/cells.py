"""Tables of layers as texts, to be read."""

from jaxvision.inspect.table import Layer

COLUMNS = (
    "layer",
    "kind",
    "output",
    "parameters",
    "multiply-adds",
    "memory",
    "receptive field",
    "stride",
)


def _by(values: tuple[float, ...] | None, otherwise: str) -> str:
    """`3` for (3, 3), `3x5` for (3, 5)."""
    if values is None:
        return otherwise
    texts = [f"{value:g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else "x".join(texts)


def cells(line: Layer) -> list[str]:
    """A line of the table, to be read."""
    traced = bool(line.output)
    return [
        line.path or ("" if line.kind == "total" else "."),
        line.kind,
        "x".join(map(str, line.output)),
        f"{line.parameters:,}" if line.parameters else "",
        f"{line.multiply_adds:,}" if line.multiply_adds else "",
        _bytes(line.memory) if line.memory else "",
        _by(line.receptive_field, "all") if traced else "",
        _by(line.stride, "") if traced else "",
    ]


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.4g} {unit}"
        count /= 1024
    raise AssertionError
