"""Errors that a user can act on: what was given, what was expected, what is near it."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, met at the door. The command line prints its text alone and exits with code 2."""


def nearest(name: str, valid: Iterable[str], count: int = 5) -> list[str]:
    """The valid names closest in spelling to `name`, best first (possibly none)."""
    return difflib.get_close_matches(name, list(valid), n=count, cutoff=0.5)


def unknown(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """The error for a `name` that is none of `valid`: names it, then the nearest valid names.

    Args:
      kind: what the name stands for, as in "model" or "config key".
      name: the name that was given.
      valid: every name that would have been accepted.
    """
    names = sorted(valid)
    close = nearest(name, names)
    if close:
        hint = "Did you mean " + " or ".join(repr(c) for c in close) + "?"
    else:
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        hint = f"Valid: {shown}." if names else "There are none."
    return UserError(f"Unknown {kind} {name!r}. {hint}")
