"""What is said of data besides errors, on the standard error stream."""

import sys
from collections.abc import Mapping

_said: set[str] = set()


def once(kind: str, text: str) -> None:
    """Prints a text, unless this process has printed one of its kind."""
    if kind not in _said:
        _said.add(kind)
        print(f"note: {text}", file=sys.stderr, flush=True)


def of_left_out(left_out: Mapping[str, int], limit: int, where: str = "") -> str:
    """What is said of objects that a batch had no room for.

    Args:
      left_out: how many, by the name of their record.
      limit: `data.max_instances`.
      where: they were counted, if not everywhere.
    """
    most = max(left_out, key=left_out.__getitem__)
    return (
        f"{len(left_out)} images{where} have more objects than data.max_instances={limit}: the "
        f"largest were kept, {sum(left_out.values())} left out. Raise it to "
        f"{limit + left_out[most]} for all of them (most are in {most})."
    )
