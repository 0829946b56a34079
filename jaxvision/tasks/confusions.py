"""What a report shows of a matrix of true by found classes, of records, pixels or objects."""

from collections.abc import Sequence

import numpy as np

from jaxvision.report import Chart, Part, Table, charts

_NAMED = 40  # classes whose names can be read beside a matrix
_PAIRS = 20


def matrix(counts: np.ndarray, names: Sequence[str]) -> Chart:
    """The matrix as a heatmap; of many classes of those with most mistakes.

    Args:
      counts: integers [n, n], true classes by found ones.
      names: of the classes.
    """
    title, chosen = "Confusion matrix", np.arange(len(names))
    if len(names) > _NAMED:
        title = f"Confusion matrix of the {_NAMED} classes with most mistakes"
        wrong = _wrong(counts)
        most = np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")
        chosen = np.sort(most[:_NAMED])
    return charts.heatmap(title, counts[np.ix_(chosen, chosen)], [names[int(k)] for k in chosen])


def pairs(counts: np.ndarray, names: Sequence[str], what: str) -> list[Part]:
    """A table of the most frequent confusions; [] where there is none.

    Args:
      counts, names: see `matrix`.
      what: is counted.
    """
    wrong, there = _wrong(counts), counts.sum(1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    found = [divmod(int(flat), len(names)) for flat in order]
    lines = [
        [names[a], names[b], int(wrong[a, b]), wrong[a, b] / there[a]]
        for a, b in found
        if wrong[a, b]
    ]
    columns = ("true", "found", what, "share of the true")
    return [Table(columns, lines, "The most frequent confusions")] if lines else []


def _wrong(counts: np.ndarray) -> np.ndarray:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    return wrong
