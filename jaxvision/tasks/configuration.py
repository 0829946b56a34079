"""Configurations as a whole: from files and the command line, as JSON, compared.

What is done here needs the keys of the configured task; see `jaxvision.config` for the machinery.
"""

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision import config_files, plugins
from jaxvision.config import FREE
from jaxvision.errors import UserError
from jaxvision.tasks import DEFAULT, default_config, schema

_FUNCTION = "function"  # how JSON marks a function that stands in a configuration


def flatten(config: ConfigDict) -> dict[str, Any]:
    """`{"train.batch_size": 128, ...}`, one entry a key, in their order."""
    return schema(config.task).flatten(config)


def set_key(config: ConfigDict, path: str, value: Any) -> None:
    """See `Schema.set_key`."""
    schema(config.task).set_key(config, path, value)


def override(config: ConfigDict, path: str, value: Any) -> None:
    """See `Schema.override`."""
    schema(config.task).override(config, path, value)


def validate(config: ConfigDict) -> None:
    """See `Schema.validate`."""
    schema(config.task).validate(config)


def load(spec: str, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """The validated configuration of `FILE[:variant]` with `overrides` applied.

    Args:
      spec: path of a Python file that defines `get_config(variant)`, or the name of one that comes
        with the package (`config_files.find`), optionally with `:variant`.
      overrides: values by key path; strings are parsed as on the command line.

    Raises:
      UserError: no such file or variant, unknown key, wrong type or value, or a plugin fails.
    """
    name, _, variant = spec.partition(":")
    path = config_files.find(name)
    config = _configured(path, variant)
    if overrides and "task" in overrides and overrides["task"] != config.task:
        raise UserError(
            f"{name} is of task {config.task!r}; another task has other keys. Start from "
            f"default_config({overrides['task']!r})."
        )
    for key, value in (overrides or {}).items():
        override(config, key, value)
    config.plugins = plugins.load(config.plugins, path.parent)
    validate(config)
    return config


def _configured(path: Path, variant: str) -> ConfigDict:
    """What `get_config` of a config file returns.

    Raises:
      UserError: there is none, it fails, or it returns something else than a configuration.
    """
    module = plugins.import_file(path, again=True)
    function = getattr(module, "get_config", None)
    if not callable(function):
        raise UserError(f"{path} defines no get_config(variant).")
    takes_variant = bool(inspect.signature(function).parameters)
    if variant and not takes_variant:
        raise UserError(f"{path} has no variants, so none is {variant!r}.")
    try:
        config = function(variant) if takes_variant else function()
    except UserError:
        raise
    except Exception as error:
        # What ConfigDict says of setting and of reading an attribute that does not exist.
        inner: Any = error
        while isinstance(inner, Exception) and inner.args:
            inner = inner.args[0]
        misspelt = re.search(r"""Key "(\w+)" does not exist|^["']+(\w+)['"]""", str(inner))
        if misspelt is None or not isinstance(error, (AttributeError, KeyError, TypeError)):
            raise plugins.failure(path, error) from error
        leaf = misspelt[1] or misspelt[2]
        raise schema(_task_of(path)).unknown_leaf(leaf, where=str(path)) from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{path}: get_config returns {type(config).__name__}; expected the configuration that "
            "it got from default_config(task)."
        )
    try:
        flatten(config)
    except KeyError as error:
        raise UserError(
            f"{path}: get_config returns a configuration that lacks keys; start from "
            f"default_config({config.get('task', DEFAULT)!r})."
        ) from error
    return config


def _task_of(path: Path) -> str:
    """The task that a config file names, whose `get_config` failed."""
    found = re.search(r"default_config\(\s*['\"](\w+)['\"]", path.read_text())
    return found[1] if found else DEFAULT


def to_json(config: ConfigDict) -> str:
    """The configuration as indented JSON; a function in it becomes its name.

    Raises:
      UserError: a function that could not be found again, see `plugins.reference`.
    """
    return json.dumps(config.to_dict(), indent=2, default=_encoded)


def _encoded(value: Any) -> Any:
    if callable(value):
        return {_FUNCTION: plugins.reference(value)}
    return list(value)


def from_json(text: str | bytes, run: Path | None = None) -> ConfigDict:
    """The configuration that `to_json` wrote.

    Configurations that were written before a key was renamed get its present name.

    Args:
      text: JSON.
      run: the folder of the run in which it was stored; no code in there is executed.

    Raises:
      UserError: the text is not such a configuration, or a part that it names is missing.
    """
    try:
        stored = json.loads(text)
    except ValueError as error:
        raise UserError(f"config.json is not valid JSON: {error}.") from error
    if not isinstance(stored, dict):
        raise UserError("config.json holds no configuration.")
    named = stored.get("plugins", [])
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise UserError(f"config.json: 'plugins' is a list of names, got {named!r}.")
    plugins.load_stored(named, run)
    task = stored.get("task", DEFAULT)
    if not isinstance(task, str):
        raise UserError(f"config.json: 'task' is a name, got {task!r}.")
    config, keys = default_config(task), schema(task)
    old_paths = {new: old for old, new in keys.renamed.items()}
    for path, key in keys.keys.items():
        value = _stored(stored, path)
        if value is None and path in old_paths:
            value = _stored(stored, old_paths[path])
        if value is None:
            continue  # written before this key existed: its default stands
        if key.part and isinstance(value, dict) and set(value) == {_FUNCTION}:
            value = plugins.resolve(value[_FUNCTION], run)
        keys.set_key(config, path, value)
    return config


def _stored(tree: Any, path: str) -> Any:
    """The value at a path, None if there is none."""
    for part in path.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return None
        tree = tree[part]
    return tree


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Keys that differ and that a resumed run may not change: `{key: (old, new)}`."""
    if old.task != new.task:
        return {"task": (old.task, new.task)}
    before, after = (json.loads(json.dumps(flatten(c), default=_encoded)) for c in (old, new))
    return {
        path: (before[path], after[path])
        for path, key in schema(new.task).keys.items()
        if not key.resumable and before[path] != after[path]
    }


def grouped(config: ConfigDict, group: str) -> ConfigDict:
    """The configuration with what a group of parameters has of its own in `optimizer.groups`.

    Raises:
      UserError: an unknown key or a wrong value there.
    """
    own = config.optimizer.groups.to_dict().get(group, {})
    if not own:
        return config
    config = config.copy_and_resolve_references()
    keys = schema(config.task)
    for part, values in own.items():
        for name, value in dict(values).items():
            path = f"{part}.{name}"
            if part not in ("optimizer", "schedule") or keys.keys.get(path, None) is None:
                raise keys.unknown(path)
            if keys.keys[path].default is FREE:
                value = dict(value)
            keys.set_key(config, path, value)
            keys.keys[path].check(path, value)
    return config
