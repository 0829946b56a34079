"""Configuration: keys with their meaning, closed trees of them, durations.

A config file defines `get_config(variant="")`, starts from `jaxvision.tasks.default_config(task)`
and overrides what its experiment needs. `common_keys.py` has the keys that every task has; each
task adds a group of its own (`tasks/<task>/keys.py`). The tree is closed: a misspelt key is an
error that names its neighbours.

Durations (`train.duration`, `eval.every`, `schedule.warmup`, ...) are a number of steps (`500`), of
epochs (`"10 epochs"`), of the whole training (`"5%"`), or `"never"`; see `steps_of`.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxvision.errors import UserError, nearest, unknown

if TYPE_CHECKING:  # importing a task alone must not need it
    from ml_collections import ConfigDict

DURATION = (int, str)  # kinds of a key that holds a duration
FREE: Any = object()  # default of groups whose keys belong to what they configure (a model, ...)


@dataclass(frozen=True)
class Key:
    """One configuration key.

    Attributes:
      default: its value where nothing else is said; also says which type is accepted.
      meaning: what it does, in a line.
      resumable: a resumed run may change it without becoming another experiment.
      kinds: accepted types besides that of the default.
      choices: the values it may have, where it takes a list, each of them; empty: any.
      least: the smallest number it may be; where a key takes a list, each of them.
      above: numbers must be larger than this.
      below: numbers must be smaller than this.
      part: it names a part of the program; a function may stand there in its place.
    """

    default: Any
    meaning: str
    resumable: bool = False
    kinds: tuple[type, ...] = ()
    choices: tuple[str, ...] = ()
    least: float | None = None
    above: float | None = None
    below: float | None = None
    part: bool = False

    @property
    def is_duration(self) -> bool:
        return self.kinds == DURATION

    def typed(self, path: str, value: Any) -> Any:
        """The value in the type of the default.

        Raises:
          UserError: it has another type.
        """
        default = self.default
        if default is FREE:
            from ml_collections import ConfigDict

            if isinstance(value, (dict, ConfigDict)):
                inner = value.to_dict() if isinstance(value, ConfigDict) else value
                return ConfigDict(inner, convert_dict=False)
            raise UserError(f"Config key {path!r} takes a mapping, got {value!r}.")
        if isinstance(default, list):
            if isinstance(value, (list, tuple)):
                return tuple(value)
            raise UserError(f"Config key {path!r} takes a list, got {value!r}.")
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if self.part and callable(value):
            return value
        accepted = self.kinds or (type(default),)
        if isinstance(value, accepted) and (bool in accepted or not isinstance(value, bool)):
            return value
        kinds = " or ".join(kind.__name__ for kind in accepted)
        raise UserError(f"Config key {path!r} takes {kinds}, got {value!r}.")

    def check(self, path: str, value: Any) -> None:
        """Checks type, choice and range.

        Raises:
          UserError: naming the key, the value and what is accepted.
        """
        self.typed(path, value)
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if self.choices and one not in self.choices:
                raise unknown(f"value of {path}", one, self.choices)
            self._check_number(path, one)
        if self.is_duration:
            steps_of(value, steps_per_epoch=10, total=100, key=path)

    def _check_number(self, path: str, value: Any) -> None:
        bounds = {"at least": self.least, "above": self.above, "below": self.below}
        given = {word: bound for word, bound in bounds.items() if bound is not None}
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"Config key {path!r} is a finite number, got {value}.")
        if not given or not (is_number or isinstance(self.default, list)):
            return
        if (
            not is_number
            or not given.get("at least", value) <= value
            or ("above" in given and value <= given["above"])
            or ("below" in given and value >= given["below"])
        ):
            limits = " and ".join(f"{word} {bound}" for word, bound in given.items())
            raise UserError(f"Config key {path!r} is a number {limits}, got {value!r}.")


@dataclass(frozen=True)
class Schema:
    """The keys of a configuration tree, and what is done with a tree by them.

    Attributes:
      keys: by path, in their order.
      renamed: the present paths of keys that had others, by the old path.
      check: what else must hold, of the values by path; raises UserError.
    """

    keys: Mapping[str, Key]
    renamed: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Mapping[str, Any]], None] = lambda values: None

    def default(self) -> "ConfigDict":
        """A fresh, closed tree with every key at its default."""
        from ml_collections import ConfigDict

        config = ConfigDict(type_safe=False)  # `validate` knows better which types are right
        for path, key in self.keys.items():
            *groups, leaf = path.split(".")
            node = config
            for group in groups:
                if group not in node:
                    node[group] = ConfigDict(type_safe=False)
                node = node[group]
            if key.default is FREE:
                node[leaf] = ConfigDict(convert_dict=False)
            elif isinstance(key.default, list):
                node[leaf] = tuple(key.default)
            else:
                node[leaf] = key.default
        return config.lock()

    def flatten(self, config: "ConfigDict") -> dict[str, Any]:
        """`{"train.batch_size": 128, ...}`, one entry a key, in their order."""
        flat = {}
        for path in self.keys:
            value: Any = config
            for part in path.split("."):
                value = value[part]
            flat[path] = value.to_dict() if self.keys[path].default is FREE else value
        return flat

    def set_key(self, config: "ConfigDict", path: str, value: Any) -> None:
        """Sets `path` in place; `value` is checked against the key's type.

        `data.options.size` style paths reach into the free-form groups.

        Raises:
          UserError: no such key, or a value of the wrong type.
        """
        for free in (p for p, key in self.keys.items() if key.default is FREE):
            if path.startswith(free + "."):
                node = config
                for part in free.split("."):
                    node = node[part]
                with node.unlocked():
                    node[path[len(free) + 1 :]] = value
                return
        if path not in self.keys:
            raise self.unknown(path)
        *groups, leaf = path.split(".")
        node = config
        for group in groups:
            node = node[group]
        node[leaf] = self.keys[path].typed(path, value)

    def override(self, config: "ConfigDict", path: str, value: Any) -> None:
        """`set_key`, with strings parsed as on the command line where the key takes no string.

        Raises:
          UserError: as `set_key`.
        """
        if isinstance(value, str):
            key = self.keys.get(path)
            if key is not None and key.is_duration:
                value = int(value) if value.isdigit() else value
            elif key is None or key.default is FREE or not isinstance(key.default, str):
                value = parse_value(value)
        self.set_key(config, path, value)

    def validate(self, config: "ConfigDict") -> None:
        """Checks values that need no data: types, choices, ranges, durations, what must agree.

        Raises:
          UserError: naming the key, the value and what is accepted.
        """
        flat = self.flatten(config)
        for path, key in self.keys.items():
            key.check(path, flat[path])
        self.check(flat)

    def unknown(self, path: str) -> UserError:
        """The error for a path that is no key: its new name if it had another, else neighbours."""
        if path in self.renamed:
            return UserError(f"Config key {path!r} is now {self.renamed[path]!r}.")
        return unknown("config key", path, self.keys)

    def unknown_leaf(self, leaf: str, where: str) -> UserError:
        """The error for an attribute that a config file set: only its last part is known."""
        renamed = {new: old for old, new in self.renamed.items() if leaf in old.split(".")}
        if renamed:
            moved = "; ".join(f"{old} is now {new}" for new, old in list(renamed.items())[:5])
            return UserError(f"{where}: unknown config key {leaf!r}: {moved}.")
        close = nearest(leaf, {part for path in self.keys for part in path.split(".")})
        paths = [path for path in self.keys if set(path.split(".")) & set(close)]
        hint = f" Did you mean {', '.join(paths[:5])}?" if paths else ""
        return UserError(f"{where}: unknown config key {leaf!r}.{hint}")


def parse_value(text: str) -> Any:
    """A command-line value: a Python literal (`0.1`, `[1, 2]`, `True`), else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def check_variant(variant: str, valid: tuple[str, ...]) -> str:
    """`variant` if it is "" or one of `valid`; else an error that lists them."""
    if variant and variant not in valid:
        raise unknown("config variant", variant, valid)
    return variant


def steps_of(
    duration: int | str, *, steps_per_epoch: int, total: int = 0, key: str = "duration"
) -> int:
    """A duration in steps: `500`, `"500 steps"`, `"2.5 epochs"`, `"10%"` of `total`, `"never"` (0).

    What is more than nothing is at least one step: a small share must not come to mean "never".

    Raises:
      UserError: the text is none of these forms.
    """
    match = re.fullmatch(r"\s*([\d.]+)\s*(steps?|epochs?|%|)\s*", str(duration))
    if str(duration).strip() == "never":
        return 0
    if not match or match[1].count(".") > 1 or match[1] == ".":
        raise UserError(
            f"{key}: {duration!r} is no duration. Write a number of steps (500), "
            "'10 epochs', '5%' or 'never'."
        )
    amount = float(match[1])
    if match[2].startswith("epoch"):
        return math.ceil(amount * steps_per_epoch)
    if match[2] == "%":
        return max(round(amount / 100 * total), int(amount * total > 0))
    return int(amount)
