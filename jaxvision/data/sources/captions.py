"""Photographs with captions: the files of Flickr8k and Flickr30k, or a text file beside each image.

Hodosh et al., Framing Image Description as a Ranking Task, 2013, https://doi.org/10.1613/jair.3994;
Young et al., From image descriptions to visual denotations, 2014,
https://doi.org/10.1162/tacl_a_00166.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision.data import notices
from jaxvision.data.sources import boxes, unsplit
from jaxvision.data.sources.boxes import DataError
from jaxvision.data.sources.files import listed, read_file
from jaxvision.data.sources.splits import Source
from jaxvision.data.sources.walk import images_below, is_image
from jaxvision.errors import UserError, unknown

_FORMS = "image,caption; image.jpg#0, a tab and the caption; or image.jpg| 0| caption"


@dataclass(frozen=True, eq=False)
class CaptionFiles:
    """Image files with their captions.

    Attributes:
      images: files.
      texts: the captions of each.
      class_names: of the configuration; captions need none.
      image_ids: of each image in its data set, where it gives them one.
    """

    images: tuple[Path, ...]
    texts: tuple[tuple[str, ...], ...]
    class_names: tuple[str, ...] = ()
    image_ids: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": read_file(self.images[index]), "captions": self.texts[index]}

    def name(self, index: int) -> str:
        return str(self.images[index])

    def image_file(self, index: int) -> Path:
        return self.images[index]

    def image_id(self, index: int) -> Any:
        """What the data set calls an image: COCO's id, else its file's name without suffix."""
        return self.image_ids[index] if self.image_ids else self.images[index].stem

    def captions(self) -> Sequence[Sequence[str]]:
        """Those of every record."""
        return self.texts


def captions(
    data: ConfigDict,
    *,
    file: str = "",
    images: str = "",
    lists: str | Mapping[str, str] = "",
    skip_missing: bool = False,
) -> Callable[[str], Source]:
    """images with captions, of data.options.file (Flickr8k, Flickr30k) or a text file beside each

    Images are taken in the order of their names.

    Args:
      data: the group of a configuration.
      file: a table of captions below `data.dir`; `{split}` in all names stands for the split. A
        line is `image,caption` with or without a header, `image.jpg#0`, a tab and the caption
        (`Flickr8k.token.txt`), or `image.jpg| 0| caption` (`results.csv` of Flickr30k). Images that
        it does not name are no records. Without a file there is `a.txt` beside `a.jpg`, a caption a
        line.
      images: folder of the images below `data.dir`; with a file `images`, else the folder of the
        split, or `images`, or `data.dir` itself.
      lists: files with the images' names of each split, a line each, or a dict with one for each
        split. Without lists and folders of splits all images are one split, or `train` and `test`
        by a hash of their names (`jaxvision.data.sources.unsplit`).
      skip_missing: leaves out captions without an image and images without a caption.

    Raises:
      UserError: see `DataError`; or there is no such file, folder or split.
    """
    root = Path(data.dir).expanduser()
    if not root.is_dir():
        raise UserError(f"No such data folder: {root}. Set --config.data.dir.")

    def load(split: str) -> Source:
        place = images or ("images" if file else _usual_place(root, data))
        folder = root / place.replace("{split}", split)
        if file:
            path = root / file.replace("{split}", split)
            found, where = read_table(path), str(path)
        else:
            found, where = _beside(folder, root), str(folder)
        if lists:
            found = _of_list(found, root, _name_of_list(lists, split), where, skip_missing)
        paths = _there(sorted(found), folder, where, root, skip_missing)
        if skip_missing:
            paths = {name: path for name, path in paths.items() if found[name]}
        if not lists and "{split}" not in file + place:
            chosen = set(unsplit.part(list(paths.values()), folder, split, data))
            paths = {name: path for name, path in paths.items() if path in chosen}
        texts = tuple(tuple(found[name]) for name in paths)
        return CaptionFiles(tuple(paths.values()), texts, tuple(data.classes))

    return load


def _usual_place(root: Path, data: ConfigDict) -> str:
    """Where images with a text file beside them are."""
    if unsplit.has_splits(root, data):
        return "{split}"
    return "images" if (root / "images").is_dir() else ""


def _beside(folder: Path, root: Path) -> dict[str, list[str]]:
    """By name of an image below the folder, the lines of the text file beside it.

    Raises:
      UserError: there is no image, or no text.
    """
    if not folder.is_dir():
        raise unknown(f"folder of images in {root}", folder.name, unsplit.folders_in(root))
    found = {}
    for image in images_below(folder):
        path = image.with_suffix(".txt")
        lines = _lines(path) if path.is_file() else []
        found[image.relative_to(folder).as_posix()] = [
            line.strip() for line in lines if line.strip()
        ]
    if not found:
        raise UserError(f"No image in {folder}.")
    if not any(found.values()):
        name = next(iter(found))
        raise UserError(
            f"No image in {folder} has a caption: expected {Path(name).with_suffix('.txt')} beside "
            f"{name}, with a caption a line, or data.options.file, a table of captions."
        )
    return found


def _lines(path: Path) -> list[str]:
    """Raises:
    DataError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError([f"Cannot read {path}: {error}."]) from error


def read_table(path: Path) -> dict[str, list[str]]:
    """The captions of each image by its name, in the order of the lines of a file; see `captions`.

    Raises:
      UserError: there is no such file.
      DataError: it is no table of captions.
    """
    if not path.is_file():
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise unknown(f"table of captions in {path.parent}", path.name, near)
    lines = [(number, line) for number, line in enumerate(_lines(path), 1) if line.strip()]
    separator = next(
        (s for s in "\t|," if any(is_image(_image_in(line, s)) for _, line in lines[:2])), None
    )
    if separator is None:
        first = lines[0][1][:60] if lines else ""
        raise DataError(
            [f"{path} begins with {first!r}, where no image is named; a line is {_FORMS}."]
        )
    if not is_image(_image_in(lines[0][1], separator)):
        lines = lines[1:]  # a header
    boxes.stop_at([
        f"{path}, line {number}: {line[:60]!r} has no {separator!r}; a line is {_FORMS}."
        for number, line in lines
        if separator not in line
    ])  # fmt: skip
    found: dict[str, list[str]] = {}
    for _, line in lines:
        text = line.partition(separator)[2].strip()
        if separator == "|":
            # Flickr30k's file has a line without the second bar.
            text = re.sub(r"^\d+\s*(\||\s)\s*", "", text)
        elif separator == "," and len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1].replace('""', '"')
        found.setdefault(_image_in(line, separator), []).append(text.strip())
    return found


def _image_in(line: str, separator: str) -> str:
    """The image that a line names."""
    name = line.partition(separator)[0].strip()
    return re.sub(r"#\d+$", "", name) if separator == "\t" else name


def _name_of_list(lists: str | Mapping[str, str], split: str) -> str:
    """Raises:
    UserError: there is none for the split.
    """
    if isinstance(lists, str):
        return lists.replace("{split}", split)
    if split not in lists:
        raise unknown("split of data.options.lists:", split, lists)
    return lists[split]


def _of_list(
    found: Mapping[str, list[str]], root: Path, name: str, where: str, skip: bool
) -> dict[str, list[str]]:
    """The captions of the images that a file lists, with or without suffix.

    Raises:
      DataError: one has no captions.
    """
    by_stem = {Path(image).stem: image for image in found}
    wanted = [by_stem.get(one, one) for one in listed(root, name)]
    if not skip:
        missing = [image for image in wanted if image not in found]
        boxes.stop_at([f"{root / name} lists {image}, which has no caption in {where}."
                       for image in missing])  # fmt: skip
    chosen = {image: found[image] for image in wanted if image in found}
    if not chosen:
        raise DataError([f"No image that {root / name} lists has a caption in {where}."])
    return chosen


def _there(
    names: Sequence[str], folder: Path, where: str, root: Path, skip: bool
) -> dict[str, Path]:
    """The files of images by their names, of those that are there.

    Raises:
      DataError: some are missing, and may not be; or all are.
    """
    paths = {name: boxes.inside(folder, name) for name in names}
    boxes.stop_at([
        f"{where} names the image {name!r}; expected one below {folder}."
        for name, path in paths.items()
        if path is None
    ])  # fmt: skip
    files = {name: path for name, path in paths.items() if path is not None}
    missing = boxes.absent(files.values())
    if not missing:
        return files
    count = f"{len(missing)} of {len(files)} images of {where} are missing, first {missing[0]}."
    if not skip or len(missing) == len(files):
        remedy = " data.options.skip_missing=True leaves their captions out."
        raise DataError([f"{count} {boxes.elsewhere(missing, root)}{'' if skip else remedy}"])
    notices.once(f"captions of {where}", f"{count} Their captions are left out.")
    gone = set(missing)
    return {name: path for name, path in files.items() if path not in gone}
