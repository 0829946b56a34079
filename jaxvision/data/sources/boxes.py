"""Images with boxes, as COCO, VOC and YOLO data sets have them: one record, and shared checks."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvision.data import notices
from jaxvision.data.facts import Facts
from jaxvision.data.sources.files import read_file
from jaxvision.data.sources.walk import hidden
from jaxvision.errors import UserError, unknown

NO_AREA = "boxes without area"
OUTSIDE = "boxes outside of their image"
_NEAR = 2000  # folders that are looked into for images that lie elsewhere


class DataError(UserError):
    """A data set is wrong, in one place or several; the text is of the first.

    Attributes:
      problems: a sentence for each.
    """

    def __init__(self, problems: Sequence[str]):
        more = len(problems) - 1
        tail = f" And {more} more: `jaxvision data check` lists them." if more else ""
        super().__init__(problems[0] + tail)
        self.problems = tuple(problems)


def stop_at(problems: Sequence[str]) -> None:
    """Raises:
    DataError: there are any.
    """
    if problems:
        raise DataError(problems)


@dataclass(frozen=True, eq=False)
class BoxFiles:
    """Image files with the objects of each, which are rows of a few arrays.

    Attributes:
      images: files.
      class_names: in order.
      starts: those of image i are rows `starts[i]` to `starts[i + 1]`.
      rows: by the record's key; `boxes` or `relative_boxes`, `box_label`, and others.
      sizes: (height, width) of each image, as the annotations say; 0 where they do not.
      image_ids: of each image in its data set, where it gives them one.
      facts: what the data set says of itself.
      faults: what is wrong with it, but no reason to stop: sentences by the kind of fault.
    """

    images: tuple[Path, ...]
    class_names: tuple[str, ...]
    starts: Int[np.ndarray, " n"]
    rows: Mapping[str, np.ndarray]
    sizes: Int[np.ndarray, "m 2"] | None = None
    image_ids: tuple[Any, ...] = ()
    facts: Facts = field(default_factory=Facts)
    faults: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        part = slice(self.starts[index], self.starts[index + 1])
        record = {key: rows[part] for key, rows in self.rows.items()}
        if self.sizes is not None and self.sizes[index].all():
            record["annotated_size"] = self.sizes[index]
        return {"image": read_file(self.images[index]), **record}

    def name(self, index: int) -> str:
        return str(self.images[index])

    def image_file(self, index: int) -> Path:
        return self.images[index]

    def image_id(self, index: int) -> Any:
        """What the data set calls an image: COCO's id, else its file's name without suffix."""
        return self.image_ids[index] if self.image_ids else self.images[index].stem


def with_objects(
    what: str,
    images: Sequence[Path],
    class_names: Sequence[str],
    image_of: Int[np.ndarray, " n"],
    rows: Mapping[str, np.ndarray],
    **more: Any,
) -> BoxFiles:
    """A `BoxFiles` of objects in any order, without those of whose box nothing is in its image.

    How many these are is said, once for each `what`.

    Args:
      what: the objects are of, as in "VOC2007, train".
      images: files.
      class_names: in order.
      image_of: the place of each object's image.
      rows: of the objects, see `BoxFiles`.
      more: attributes of the `BoxFiles`.

    Raises:
      UserError: two classes have one name.
    """
    if twice := [name for name, count in Counter(class_names).items() if count > 1]:
        raise UserError(f"data.classes names {twice[0]!r} twice.")
    order = np.argsort(image_of, kind="stable")
    image_of, rows = image_of[order], {key: values[order] for key, values in rows.items()}
    boxes = rows["boxes"] if "boxes" in rows else rows["relative_boxes"]
    flat = np.any(boxes[:, 2:] <= boxes[:, :2], axis=1)
    gone = _outside(boxes, image_of, more.get("sizes"), "boxes" in rows) & ~flat
    faults = {}
    for kind, chosen in ((NO_AREA, flat), (OUTSIDE, gone)):
        if chosen.any():
            faults[kind] = tuple(
                f"{images[image_of[row]]}: {class_names[rows['box_label'][row]]} "
                f"({', '.join(f'{side:g}' for side in boxes[row])})"
                for row in np.flatnonzero(chosen)
            )
    if faults:
        counts = " and ".join(f"{len(found)} {kind}" for kind, found in faults.items())
        first = next(iter(faults.values()))[0]
        notices.once(
            f"boxes of {what}",
            f"{what}: {counts}, of {len(boxes):,} boxes, are left out, first {first}.",
        )
    kept = ~(flat | gone)
    starts = np.concatenate([[0], np.cumsum(np.bincount(image_of[kept], minlength=len(images)))])
    return BoxFiles(
        tuple(images),
        tuple(class_names),
        starts,
        {key: values[kept] for key, values in rows.items()},
        faults={**more.pop("faults", {}), **faults},
        **more,
    )


def _outside(
    boxes: Float[np.ndarray, "n 4"],
    image_of: Int[np.ndarray, " n"],
    sizes: Int[np.ndarray, "m 2"] | None,
    in_pixels: bool,
) -> Bool[np.ndarray, " n"]:
    """Which boxes have no area inside of their image, as far as its size is known."""
    limit = np.ones((len(boxes), 2))
    if in_pixels:
        known = np.zeros((len(boxes), 2)) if sizes is None else sizes[image_of, ::-1]
        limit = np.where(known > 0, known, np.inf)
    return np.any((boxes[:, :2] >= limit) | (boxes[:, 2:] <= 0), axis=1)


def unknown_classes(
    classes: Iterable[tuple[str, Any]], class_names: Sequence[str], remedy: str = ""
) -> list[str]:
    """A sentence for each class that is not among the names.

    Args:
      classes: (class, where) of each object.
      class_names: the classes that there are.
      remedy: what can be done.
    """
    known = set(class_names)
    counts: Counter[str] = Counter()
    first: dict[str, Any] = {}
    for name, where in classes:
        if name not in known:
            counts[name] += 1
            first.setdefault(name, where)
    return [
        f"{unknown(f'class of {count} objects (first in {first[name]}):', name, class_names)}"
        f"{remedy}"
        for name, count in counts.items()
    ]


# -- where images lie -----------------------------------------------------------------------------


def inside(root: Path, name: Any) -> Path | None:
    """The file of this name below a folder; None if the name is none, or leads out of it."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        return None
    given = Path(name)
    return None if given.is_absolute() or ".." in given.parts else root / given


def absent(paths: Iterable[Path]) -> list[Path]:
    """Those that are no files; each folder is listed once."""
    names: dict[Path, set[str]] = {}
    missing = []
    for path in paths:
        folder = path.parent
        if folder not in names:
            names[folder] = set(os.listdir(folder)) if folder.is_dir() else set()
        if path.name not in names[folder]:
            missing.append(path)
    return missing


def check_images(paths: Sequence[Path], listed_in: str, root: Path, skip: bool) -> None:
    """Looks whether the images of a data set are where they are expected.

    Args:
      paths: all of them.
      listed_in: says where they come from.
      root: the data set's folder, near which they are looked for.
      skip: some may be missing (`data.on_corrupt="skip"`): they are met as unreadable ones.

    Raises:
      DataError: images are missing; it says where the first is, if it is near.
    """
    missing = absent(paths)
    if not missing or (skip and len(missing) < len(paths)):
        return
    raise DataError([
        f"{len(missing)} of {len(paths)} images of {listed_in} are missing, first {missing[0]}. "
        + elsewhere(missing, root)
    ])  # fmt: skip


def elsewhere(missing: Sequence[Path], root: Path, option: str = "images") -> str:
    """A sentence on where missing files are, near a folder; `option` names their place."""
    found = _nearest([path.name for path in missing[:20]], root)
    remedy = f"set data.dir, or data.options.{option}."
    if found is None:
        return f"No folder near has it; {remedy}"
    name, folder = found
    return f"{name} is in {folder}: {remedy}"


def _nearest(names: Sequence[str], root: Path) -> tuple[str, Path] | None:
    """The first folder that has one of the files, of those in `root` and below, then beside it."""
    waiting = [root, root.parent]
    seen: set[Path] = set()
    while waiting and len(seen) < _NEAR:
        folder = waiting.pop(0)
        if folder in seen:
            continue
        seen.add(folder)
        for name in names:
            if (folder / name).is_file():
                return name, folder
        try:
            below = [Path(e.path) for e in os.scandir(folder) if e.is_dir(follow_symlinks=False)]
        except OSError:  # a folder that may not be read has nothing to offer
            continue
        ours = [path for path in sorted(below) if not hidden(path.name)]
        # Those below the data set's folder come before its neighbours.
        waiting = [*ours, *waiting] if root in (folder, *folder.parents) else [*waiting, *ours]
    return None
