"""Options that a configuration gives as plain data, against the function that takes them."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from jaxvision.errors import UserError, unknown


def check(part: str, noun: str, function: Callable[..., Any], given: Iterable[str]) -> None:
    """Checks names against a function's keyword-only parameters.

    Args:
      part: what the function is, as in "transform 'resize'".
      noun: what its parameters are called, as in "parameter" or "option".
      function: takes any option if it has a `**` parameter.
      given: names of the options.

    Raises:
      UserError: one is unknown, or a required one is missing.
    """
    parameters = inspect.signature(function).parameters.values()
    keywords = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    given = list(given)
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in given:
            if name not in keywords:
                raise unknown(f"{noun} of {part}", name, keywords)
    for keyword in keywords.values():
        if keyword.default is keyword.empty and keyword.name not in given:
            raise UserError(f"{part[0].upper()}{part[1:]} needs the {noun} {keyword.name!r}.")
