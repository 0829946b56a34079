"""What the package `selectivesearch` finds in photographs: the file that ours is compared with.

    python tests/parity/selective_search.py [FOLDER]

writes tests/parity/selective_search.npz, which tests/classical/test_selective_search.py compares
with. It needs `pip install selectivesearch==0.4 scikit-image==0.26.0`, in any environment. FOLDER
has photographs that are not part of the project, in `bccd` and `coco128_val`.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

GOLDEN = Path(__file__).parent / "selective_search.npz"
OPTIONS = {
    "defaults": {"scale": 1.0, "sigma": 0.8, "min_size": 50},
    "readme": {"scale": 500, "sigma": 0.9, "min_size": 10},
}
BUNDLED = ("astronaut", "coffee", "chelsea", "rocket")  # with scikit-image
FILES = {
    "bccd": "bccd/JPEGImages/BloodImage_00001.jpg",
    "coco": "coco128_val/images/val2017/000000000285.jpg",
}
_EVERY = 4  # rows and columns that are kept


def photograph(name: str, folder: Path | None = None) -> np.ndarray:
    """uint8 [h w 3]."""
    if name in BUNDLED:
        from skimage import data

        return getattr(data, name)()[::_EVERY, ::_EVERY]
    assert folder is not None
    return np.asarray(Image.open(folder / FILES[name]).convert("RGB"))[::_EVERY, ::_EVERY]


def main() -> None:
    from selectivesearch import selective_search

    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    golden = {}
    warnings.simplefilter("ignore")  # its patterns of floating-point images
    for name in (*BUNDLED, *(FILES if folder else ())):
        for kind, options in OPTIONS.items():
            image, regions = selective_search(photograph(name, folder), **options)
            golden |= {
                f"{name} {kind} segments": image[..., 3].astype(np.int16),
                f"{name} {kind} rect": np.array([r["rect"] for r in regions], np.int16),
                f"{name} {kind} size": np.array([r["size"] for r in regions], np.int32),
                f"{name} {kind} count": np.array([len(r["labels"]) for r in regions], np.int16),
                f"{name} {kind} labels": np.concatenate(
                    [np.array(r["labels"], np.int16) for r in regions]
                ),
            }
    np.savez_compressed(GOLDEN, **golden)
    print(f"Wrote {GOLDEN} ({GOLDEN.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    main()
