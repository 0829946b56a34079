"""Folders without splits: each file is in `train` or in `test` by a hash of its name."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jaxvision.data import notices
from jaxvision.data.sources.splits import base_splits
from jaxvision.data.sources.walk import hidden
from jaxvision.errors import UserError

TEST_SHARE = 0.2
_USUAL = ("train", "training", "test", "testing", "val", "valid", "validation")


def digest(path: Path, root: Path) -> bytes:
    """MD5 of a file's name below a folder: an order, and a share, that no other file changes."""
    return hashlib.md5(path.relative_to(root).as_posix().encode()).digest()


def folders_in(root: Path) -> list[str]:
    """Names of the folders in a folder, in alphabetical order, without hidden ones."""
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not hidden(p.name))


def configured(data: ConfigDict) -> list[str]:
    """The whole splits that a configuration draws from."""
    specs = [spec for spec in (data.train, data.validation, data.test) if spec]
    return list(dict.fromkeys(name for spec in specs for name in base_splits(spec)))


def has_splits(root: Path, data: ConfigDict) -> bool:
    """Whether a folder has one for a split, be it of the configuration or of a usual name."""
    wanted = {*_USUAL, *configured(data)}
    return any(name in wanted or name.lower() in _USUAL for name in folders_in(root))


def part(files: Sequence[Path], root: Path, split: str, data: ConfigDict) -> list[Path]:
    """The files of one split; all of them, where the configuration knows one split alone.

    Raises:
      UserError: the split is neither `train` nor `test`, or part of the one that is known.
    """
    names = configured(data)
    if names == [split]:
        return list(files)
    if split not in ("train", "test") or len(names) == 1:
        raise UserError(
            f"{root} has no folder {split!r}. Without folders of splits its files are in 'train' "
            f"({1 - TEST_SHARE:.0%}) and 'test' ({TEST_SHARE:.0%}); cut these, as in train[:90%]."
        )
    tested = [p for p in files if digest(p, root)[0] < TEST_SHARE * 256]
    chosen = set(tested)
    trained = [p for p in files if p not in chosen]
    notices.once(
        f"unsplit {root}",
        f"{root} has no folders of splits: by a hash of its name each file is in 'train' "
        f"({len(trained)} files) or in 'test' ({len(tested)}), the same in every command.",
    )
    return trained if split == "train" else tested
