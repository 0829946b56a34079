"""Images whose labels are in a CSV file: one label a row, or several."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jaxvision.data.sources import unsplit
from jaxvision.data.sources.files import Files
from jaxvision.data.sources.splits import Source, base_splits
from jaxvision.data.sources.walk import IMAGE_SUFFIXES
from jaxvision.errors import UserError, unknown

Rows = list[dict[str, str]]


def table(
    data: ConfigDict,
    *,
    file: str = "labels.csv",
    images: str = "",
    image: str = "image",
    label: str = "label",
    labels: Sequence[str] = (),
    separator: str = "",
    split: str = "split",
) -> Callable[[str], Source]:
    """images listed in a CSV file with their labels: DIR/labels.csv, columns image, label (, split)

    Args:
      data: the group of a configuration; `dir` is where file and images are.
      file: the table; `{split}` in its name stands for the split.
      images: folder of the images below `dir`.
      image: column of the images' names, with or without suffix.
      label: column of the label, or of several with `separator` between.
      labels: columns of 0 and 1, one a class, in place of `label`.
      separator: between labels; "" is one label an image.
      split: column of the split; where there is none, a hash of the image's name decides.
    """
    root = Path(data.dir).expanduser()
    columns = tuple(labels)
    several = bool(columns or separator)

    def labels_in(row: dict[str, str]) -> list[str]:
        if columns:
            return [name for name in columns if _is_one(row, name, root / file)]
        if not several:
            return [row[label].strip()]
        return [part.strip() for part in row[label].split(separator) if part.strip()]

    def read(name: str) -> Rows:
        path = root / file.replace("{split}", name)
        return _rows(path, [image, *(columns or [label])])

    names: list[str] = list(data.classes) or list(columns)

    def load(wanted: str) -> Source:
        rows = read(wanted)
        if not names:  # every split of an experiment counts classes as its training split does
            counted = read(base_splits(data.train)[0]) if "{split}" in file else rows
            names.extend(sorted({one for row in counted for one in labels_in(row)}))
        if not rows:
            raise UserError(f"{root / file} has no row.")
        place = root / images
        if "{split}" not in file and split in rows[0]:
            found = sorted({row[split] for row in rows})
            if wanted not in found:
                raise unknown(f"split in the column {split!r} of {root / file}", wanted, found)
            rows = [row for row in rows if row[split] == wanted]
        paths = [_image_of(place, row[image]) for row in rows]
        if "{split}" not in file and split not in rows[0]:
            chosen = set(unsplit.part(paths, place, wanted, data))
            rows = [row for row, path in zip(rows, paths) if path in chosen]
            paths = [path for path in paths if path in chosen]
        indices = {name: index for index, name in enumerate(names)}
        numbered = []
        for row, path in zip(rows, paths):
            own = labels_in(row)
            if strange := [one for one in own if one not in indices]:
                raise unknown(f"label of {path} in {file}:", strange[0], names)
            numbered.append(tuple(indices[one] for one in own))
        if several:
            return Files(tuple(paths), tuple(names), label_sets=tuple(numbered))
        return Files(tuple(paths), tuple(names), labels=tuple(one for (one,) in numbered))

    return load


def _rows(path: Path, needed: Sequence[str]) -> Rows:
    """The rows of a CSV file by column.

    Raises:
      UserError: there is no such file, it is not UTF-8, or a column is missing.
    """
    if not path.is_file():
        near = [p.name for p in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        raise unknown(f"table in {path.parent}", path.name, near)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            start = file.read(4096)
            file.seek(0)
            delimiter = max(",;\t", key=start.partition("\n")[0].count)
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            header = [name for name in reader.fieldnames or () if name]
            for name in needed:
                if name not in header:
                    raise unknown(f"column of {path}", name, header)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"Cannot read {path}: {error}.") from error
    for number, row in enumerate(rows, start=2):
        if any(row[name] is None for name in needed):
            raise UserError(f"{path}, line {number}: too few columns.")
    return rows


def _is_one(row: dict[str, str], name: str, path: Path) -> bool:
    value = row[name].strip().lower()
    if value not in ("0", "1", "0.0", "1.0", "", "false", "true"):
        raise UserError(f"{path}: column {name!r} holds {row[name]!r}; expected 0 or 1.")
    return value in ("1", "1.0", "true")


def _image_of(folder: Path, name: str) -> Path:
    """The file that a row names.

    Raises:
      UserError: there is none, or it is elsewhere.
    """
    given = Path(name.strip())
    if given.is_absolute() or ".." in given.parts or not given.parts:
        raise UserError(f"The table names the image {name!r}; expected one below {folder}.")
    path = folder / given
    if path.suffix.lower() in IMAGE_SUFFIXES or path.is_file():
        return path
    found = [p for suffix in IMAGE_SUFFIXES if (p := Path(f"{path}{suffix}")).is_file()]
    if not found:
        raise UserError(f"The table names the image {name!r}, which is not in {folder}.")
    return found[0]
