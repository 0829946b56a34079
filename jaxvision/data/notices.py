"""What is said of data besides errors, on the standard error stream."""

import sys

_said: set[str] = set()


def once(kind: str, text: str) -> None:
    """Prints a text, unless this process has printed one of its kind."""
    if kind not in _said:
        _said.add(kind)
        print(f"note: {text}", file=sys.stderr, flush=True)
