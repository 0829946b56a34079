"""Errors that a user can act on: what was given, what was expected, what is near it."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, met at the door. The command line prints its text alone and exits with code 2."""


# What other libraries call what is called thus here.
_SYNONYMS = {
    "betas": ("b1", "b2"),
    "bs": ("batch_size",),
    "epochs": ("duration",),
    "lr": ("learning_rate",),
    "max_epochs": ("duration",),
    "max_steps": ("duration",),
    "num_class": ("num_classes",),
    "num_epochs": ("duration",),
    "num_workers": ("workers",),
    "steps": ("duration",),
    "wd": ("weight_decay",),
}


def nearest(name: str, valid: Iterable[str], count: int = 5) -> list[str]:
    """The valid names that mean the same as `name`, else those closest in spelling, best first."""
    names = list(valid)
    meant = _SYNONYMS.get(name.rpartition(".")[2], ())
    found = [other for other in names if other.rpartition(".")[2] in meant]
    return found[:count] or difflib.get_close_matches(name, names, n=count, cutoff=0.5)


def unknown(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """The error for a `name` that is none of `valid`: names it, then the nearest valid names.

    Args:
      kind: what the name stands for, as in "model" or "config key".
      name: the name that was given.
      valid: every name that would have been accepted.
    """
    names = sorted(valid)
    close = nearest(str(name), names)
    if close:
        hint = "Did you mean " + " or ".join(repr(c) for c in close) + "?"
    else:
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        hint = f"Valid: {shown}." if names else "There are none."
    return UserError(f"Unknown {kind} {name!r}. {hint}")
