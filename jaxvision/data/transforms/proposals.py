"""Proposals of objects, found on the image of a record: the annotation `proposals`."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from jaxvision.data.transforms.pipeline import Record, image_size, register
from jaxvision.errors import UserError

_VERSION = 1  # of what the cache holds: raised when the same image gives other proposals
_Find = Callable[[], Float[np.ndarray, "n 4"]]


@register("selective_search")
def selective_search(
    record: Record,
    rng: np.random.Generator,
    *,
    mode: str = "fast",
    count: int = 2000,
    min_size: int = 0,
    seed: int = 0,
    cache: str = "",
) -> Record:
    """Finds regions that may be objects, by grouping what is alike: Uijlings et al. 2013.

    https://doi.org/10.1007/s11263-013-0620-5. What follows moves the proposals along with the
    image, so before random transforms they are the same in each epoch, and a cache finds them.

    Args:
      mode: see `jaxvision.classical.selective_search.selective_search`.
      count: proposals that are kept at most, the best ones; a batch holds `data.max_proposals`.
      min_size: proposals with a side of fewer pixels are left out.
      seed: of their order, which is partly random.
      cache: a folder that keeps the proposals of images that were seen; empty: none does.

    Raises:
      UserError: the image is a volume, a parameter is wrong, or the cache cannot be written.
    """
    image_size(record)
    image = record["image"]
    if image.shape[-1] == 1:
        image = np.repeat(image, 3, axis=-1)

    def find() -> Float[np.ndarray, "n 4"]:
        # Imported late: scikit-image is slow to import, and other data do not need it.
        from jaxvision.classical.selective_search import selective_search

        return selective_search(image, mode, min_side=min_size, limit=count, seed=seed)

    if not cache:
        return {**record, "proposals": find()}
    key = f"{_VERSION} {mode} {count} {min_size} {seed}"
    return {**record, "proposals": _cached(Path(cache).expanduser(), image, key, find)}


def _cached(
    folder: Path, image: UInt8[np.ndarray, "h w 3"], parameters: str, find: _Find
) -> Float[np.ndarray, "n 4"]:
    """What the folder has of the image, or what is found; then the folder has it.

    Raises:
      UserError: the folder cannot be written.
    """
    digest = hashlib.sha256(f"{parameters} {image.shape}\n".encode())
    digest.update(image.tobytes())
    name = digest.hexdigest()
    path = folder / name[:2] / f"{name}.npy"
    stored = _read(path)
    if stored is not None:
        return stored
    boxes = find()
    try:
        _write(path, boxes)
    except OSError as error:
        raise UserError(f"The cache of selective search, {folder}, fails: {error}.") from error
    return boxes


def _read(path: Path) -> Float[np.ndarray, "n 4"] | None:
    """The boxes of a file; None if there is none, or it is damaged and has to be written anew."""
    try:
        boxes = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = boxes.dtype == np.float32 and boxes.ndim == 2 and boxes.shape[1] == 4
    return boxes if fits else None


def _write(path: Path, boxes: Float[np.ndarray, "n 4"]) -> None:
    """Writes a whole file or none; several processes may write the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.save(file, boxes, allow_pickle=False)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
