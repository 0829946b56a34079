"""Users' own parts: packages and files that register networks, tasks, losses, ... by decorators.

A configuration names them in `plugins`: `("my_package.nets", "./my_net.py")`. A run stores them, so
that evaluating, predicting and resuming find them again. Importing one executes it. What is stored
in a run's folder is data that may come from elsewhere: a file inside that folder is never executed.
"""

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxvision.errors import UserError

_files: dict[Path, ModuleType] = {}  # what was imported from files of its own


def load(plugins: Sequence[str], folder: Path | None = None) -> tuple[str, ...]:
    """Imports plugins.

    Args:
      plugins: names of installed modules, or paths that end in `.py`.
      folder: what relative paths start from, before the working directory.

    Returns:
      The same with absolute paths, as a run stores them.

    Raises:
      UserError: one of them is missing, or its import fails.
    """
    found = []
    for plugin in plugins:
        if plugin.endswith(".py"):
            path = _located(plugin, folder)
            import_file(path)
            found.append(str(path))
        else:
            _import_module(plugin)
            found.append(plugin)
    return tuple(found)


def load_stored(plugins: Sequence[str], run: Path | None) -> None:
    """Imports the plugins that a run was trained with.

    Args:
      plugins: as `load` returned them.
      run: the run's folder, from which nothing is executed.

    Raises:
      UserError: one is missing, lies in the run's folder, or its import fails.
    """
    for plugin in plugins:
        if plugin.endswith(".py"):
            path = Path(plugin)
            if not path.is_file():
                raise UserError(
                    f"The run needs the plugin {plugin}, which is missing. Put it back, or name "
                    "its new place: --config.plugins=\"('FILE.py',)\"."
                )
            _refuse_inside(path, run)
            import_file(path)
        else:
            _import_module(plugin)


def _refuse_inside(path: Path, run: Path | None) -> None:
    if run is not None and path.resolve().is_relative_to(run.resolve()):
        raise UserError(f"{path} lies in the folder of the run; code in there is not executed.")


def _located(name: str, folder: Path | None) -> Path:
    for base in (folder, Path.cwd()):
        if base is not None and (base / name).is_file():
            return (base / name).resolve()
    raise UserError(f"No plugin file {name!r}, neither beside the config file nor here.")


def import_file(path: Path, again: bool = False) -> ModuleType:
    """The module of a Python file.

    Args:
      again: execute it even where it has been imported before.

    Raises:
      UserError: it is no Python file, or fails.
    """
    path = path.resolve()
    if path in _files and not again:
        return _files[path]
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"jaxvision_file_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path.name} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, UserError):
            raise
        raise failure(path, error) from error
    _files[path] = module
    return module


def failure(path: Path, error: Exception) -> UserError:
    """What a user's file failed with, and the line of it where that happened."""
    kind, line = type(error).__name__, None
    if isinstance(error, SyntaxError):
        source = (error.text or "").strip()
        return UserError(f"{error.filename}, line {error.lineno}: {error.msg}: {source}")
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).resolve() == path.resolve():
            line = frame  # the innermost of its own
    if line is None:
        return UserError(f"{path} cannot be used: {kind}: {error}")
    return UserError(f"{path}, line {line.lineno}: {kind}: {error}\n  {line.line}")


def _import_module(name: str) -> ModuleType:
    if name.split(".")[0] in sys.stdlib_module_names:
        raise UserError(f"{name!r} is a module of Python itself, no plugin.")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"The plugin {name!r} cannot be imported: {error}. Install it, or give the path of "
            "a file that ends in .py."
        ) from error


# -- functions that stand in a configuration -------------------------------------------------------


def reference(function: Any) -> str:
    """`"MODULE:NAME"` or `"FILE.py:NAME"` of a function or class, from which `resolve` finds it.

    Raises:
      UserError: it is no top-level name of a module, so it could not be found again.
    """
    module = sys.modules.get(getattr(function, "__module__", ""))
    name = getattr(function, "__qualname__", "")
    if module is None or getattr(module, name, None) is not function:
        raise UserError(
            f"{name or function!r} in the configuration cannot be found again by a later process; "
            "define it at the top level of a module or of the config file."
        )
    path = next((path for path, known in _files.items() if known is module), None)
    return f"{path or module.__name__}:{name}"


def resolve(text: str, run: Path | None = None) -> Any:
    """What `reference` stands for.

    Args:
      run: the folder of the run in which the text was stored.

    Raises:
      UserError: the file, the module or the name is missing, or it is of another module.
    """
    place, _, name = text.rpartition(":")
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise UserError(f"The run needs {name} of {place}, which is missing. Put it back.")
        _refuse_inside(path, run)
        module = import_file(path)
    else:
        module = _import_module(place)
    found = getattr(module, name, None)
    if found is None or getattr(found, "__module__", None) != module.__name__:
        raise UserError(f"{place} defines no {name}, which the run was trained with.")
    return found
