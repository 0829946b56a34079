"""Masks as torchvision pastes them onto photographs, as run lengths.

    python tests/parity/paste.py

writes tests/parity/paste.npz, which tests/data/test_masks.py compares with. See README.md for the
environment. Where torchvision's compiled operators do not load, name a folder with a module
`tv_stub` that defines them, in `TORCHVISION_OPERATORS`.
"""

import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import _uniform

GOLDEN = Path(__file__).parent / "paste.npz"
# name: cells of a grid's side, (height, width) of the photograph
CASES: dict[str, tuple[int, tuple[int, int]]] = {
    "photograph": (28, (240, 320)),
    "small": (14, (37, 53)),
    "pixels": (28, (19, 16)),  # grids are reduced
}


def grids(name: str, cells: int) -> np.ndarray:
    """Probabilities [k, cells, cells] of smooth blobs."""
    waves = _uniform(name, (9, 5, 5))
    at = np.linspace(0, np.pi, cells)
    basis = np.cos(np.arange(5)[:, None] * at)
    logits = 3 * np.einsum("kij,iy,jx->kyx", waves, basis, basis)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def boxes(size: tuple[int, int]) -> np.ndarray:
    """Inside, over the border, of a pixel, of a part of one, of more than the photograph."""
    height, width = size
    shares = [
        [0.1, 0.2, 0.6, 0.7], [0.31, 0.11, 0.93, 0.54], [-0.2, 0.5, 0.4, 1.3],
        [0.8, -0.3, 1.2, 0.3], [0.5, 0.5, 0.503, 0.9], [0.25, 0.75, 0.25, 0.75],
        [-0.4, -0.5, 1.7, 1.4], [0, 0, 1, 1],
    ]  # fmt: skip
    found = np.array(shares) * [width, height, width, height]
    return np.concatenate([found, [[3.5, 4.25, 9.75, 7.5]]]).astype(np.float32)


def main() -> None:
    import torch

    if folder := os.environ.get("TORCHVISION_OPERATORS"):
        sys.path.insert(0, folder)
        import tv_stub  # noqa: F401
    from pycocotools import mask as tools
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    found: dict[str, np.ndarray] = {}
    for name, (cells, size) in CASES.items():
        given = torch.tensor(grids(name, cells))[:, None]
        pasted = paste_masks_in_image(given, torch.tensor(boxes(size)), size)[:, 0] > 0.5
        texts = [tools.encode(np.asfortranarray(mask))["counts"] for mask in pasted.numpy()]
        found[f"{name}/text"] = np.frombuffer(b"".join(texts), np.uint8)
        found[f"{name}/ends"] = np.cumsum([len(text) for text in texts])
    np.savez_compressed(GOLDEN, **found)
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
