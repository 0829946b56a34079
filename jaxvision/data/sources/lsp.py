"""Leeds Sports Pose Extended: Johnson and Everingham, Learning Effective Human Pose Estimation from
Inaccurate Annotation, 2011, http://sam.johnson.io/research/lspet.html."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from jaxvision.data.facts import Facts
from jaxvision.data.sources import boxes
from jaxvision.data.sources.boxes import DataError
from jaxvision.data.sources.splits import Source
from jaxvision.errors import UserError, unknown

NAMES = (
    *("right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle"),
    *("right wrist", "right elbow", "right shoulder"),
    *("left shoulder", "left elbow", "left wrist", "neck", "head top"),
)
_PAIRS = ((5, 0), (4, 1), (3, 2), (11, 6), (10, 7), (9, 8))
_SKELETON = (
    *((0, 1), (1, 2), (5, 4), (4, 3), (2, 3)),  # the legs
    *((2, 8), (3, 9), (8, 12), (9, 12), (12, 13)),  # the trunk and the head
    *((6, 7), (7, 8), (11, 10), (10, 9)),  # the arms
)
_FACTS = Facts(keypoint_names=NAMES, keypoint_pairs=_PAIRS, skeleton=_SKELETON)
_TRAINED = 0.75  # the share of the images that are in `train`


def lsp(data: ConfigDict, *, margin: float = 0.1) -> Callable[[str], Source]:
    """Leeds Sports Pose Extended, a person an image: DIR/images/im00001.jpg, ..., DIR/joints.mat

    The first 75 % of the images that are there are `train`, the rest is `test`. A person's box is
    that of the joints which are labelled, with a margin around it.

    Args:
      data: the group of a configuration.
      margin: of the box on each side, in parts of its longer side.

    Raises:
      UserError: see `DataError`; or the folder or a file is missing, or there is no such split.
    """
    root = Path(data.dir).expanduser()

    def load(split: str) -> Source:
        if split not in ("train", "test"):
            raise unknown("split of lsp", split, ("train", "test"))
        paths, numbers = _images(root)
        joints = _joints(root / "joints.mat", numbers)
        cut = round(_TRAINED * len(paths))
        part = slice(cut) if split == "train" else slice(cut, None)
        paths, joints = paths[part], joints[part]
        there = (joints[..., 2] > 0).any(1)
        return boxes.with_objects(
            f"{root}, split {split!r}",
            paths,
            tuple(data.classes) or ("person",),
            np.flatnonzero(there),
            {
                "boxes": _boxes(joints[there], margin),
                "box_label": np.zeros(there.sum(), np.int32),
                "keypoints": joints[there],
            },
            facts=_FACTS,
        )

    return load


def _images(root: Path) -> tuple[list[Path], list[int]]:
    """(files, numbers) of the images, in the order of their numbers.

    Raises:
      UserError: there are none.
    """
    folder = root / "images"
    if not folder.is_dir():
        raise UserError(f"No folder {folder}; expected images and joints.mat in data.dir.")
    named = {p: re.fullmatch(r"im0*(\d+)\.jpe?g", p.name) for p in folder.iterdir()}
    found = sorted((int(name[1]), path) for path, name in named.items() if name)
    if not found:
        raise UserError(f"No image in {folder}; expected im00001.jpg, im00002.jpg, ...")
    return [path for _, path in found], [number for number, _ in found]


def _joints(path: Path, numbers: list[int]) -> Float[np.ndarray, "n 14 3"]:
    """(x, y, labelled) of the joints of the images with these numbers; zeros of what is not.

    Raises:
      DataError: there is no such file, or it holds something else.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        raise DataError([f"No file {path}; expected images and joints.mat in data.dir."])
    try:
        stored = loadmat(path).get("joints")
    except OSError as error:
        raise DataError([f"Cannot read {path}: {error.strerror or error}."]) from error
    except (MatReadError, ValueError, TypeError, NotImplementedError) as error:
        raise DataError([f"{path} is no file of MATLAB: {error}."]) from error
    shape = None if stored is None else list(stored.shape)
    if shape is None or len(shape) != 3 or shape[:2] != [len(NAMES), 3]:
        raise DataError([f"{path}: 'joints' has the shape {shape}; expected [14, 3, images]."])
    if numbers[0] < 1 or numbers[-1] > shape[2]:
        raise DataError([
            f"{path} has the joints of images 1 to {shape[2]}; there are images {numbers[0]} to "
            f"{numbers[-1]}."
        ])  # fmt: skip
    joints = stored[..., np.array(numbers) - 1].transpose(2, 0, 1).astype(np.float32)
    labelled = joints[..., 2] > 0
    if not np.isfinite(joints[labelled]).all():
        raise DataError([f"{path}: a labelled joint has coordinates that are not finite."])
    joints[..., :2] -= 0.5  # MATLAB counts the centres of pixels from 1 on
    return np.where(labelled[..., None], joints, 0)


def _boxes(joints: Float[np.ndarray, "n 14 3"], margin: float) -> Float[np.ndarray, "n 4"]:
    """Boxes of the labelled joints with a margin around them."""
    hidden = joints[..., 2:] == 0
    low = np.where(hidden, np.inf, joints[..., :2]).min(1)
    high = np.where(hidden, -np.inf, joints[..., :2]).max(1)
    border = margin * (high - low).max(1, keepdims=True)
    return np.concatenate([low - border, high + border], 1).astype(np.float32)
