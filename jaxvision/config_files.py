"""The configuration files that come with the package: `digits`, `classification/digits`, ...

In a checkout they are its folder `configs/`; an installed package has them beside its modules.
"""

import ast
from pathlib import Path

from jaxvision.errors import UserError, nearest

_PACKAGE = Path(__file__).parent


def folder() -> Path:
    """The folder that they are in, one below for each task."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def shipped() -> dict[str, Path]:
    """The files by name, `classification/digits`."""
    root = folder()
    found = sorted(p for p in root.glob("*/*.py") if not p.name.startswith("_"))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in found}


def find(name: str) -> Path:
    """The file of a path, or of a name of one that comes with the package.

    Args:
      name: `my_config.py`, `classification/digits`, `digits`; `configs/classification/digits.py`
        is found from anywhere.

    Raises:
      UserError: there is none, or several have that name.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    files = shipped()
    wanted = path.as_posix().removesuffix(".py").removeprefix("configs/")
    found = [own for own in files if wanted in (own, own.rpartition("/")[2])]
    if len(found) == 1:
        return files[found[0]]
    if found:
        raise UserError(f"Several config files are called {name!r}: {', '.join(found)}.")
    here = [str(p) for p in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
    close = nearest(wanted, files, count=3) or nearest(str(path), here, count=3)
    if not close:  # a stem says more than a whole path does
        stems = {own.rpartition("/")[2]: own for own in files}
        close = [stems[stem] for stem in nearest(path.stem, stems, count=3)]
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise UserError(f"No config file {name!r}.{hint} `jaxvision info configs` lists them.")


def first_line(path: Path) -> str:
    """What a config file says of itself; the file is not executed."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.partition("\n")[0]
