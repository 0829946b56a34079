"""What torchvision's operators see in boxes: values, and the features' gradient.

    python tests/parity/roi_ops.py

writes tests/parity/roi_ops.npz, which tests/ops/test_roi.py compares with. See README.md for the
environment. Where torchvision's compiled operators do not load, name a folder with a module
`tv_stub` that defines them, in `TORCHVISION_OPERATORS`.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import _uniform

GOLDEN = Path(__file__).parent / "roi_ops.npz"
SCALE = 0.25  # of the map by the image
MAP = (2, 9, 13)  # images, rows, columns
PYRAMID = ((17, 23), (9, 12))
CANONICAL = (15.0, 3)  # size and level, so that both levels, of strides 4 and 8, are used

# name: (operator, channels, bins, options)
CASES: dict[str, tuple[str, int, tuple[int, int], dict[str, Any]]] = {
    "align": ("roi_align", 3, (3, 2), {"sampling_ratio": 2}),
    "align, one sample": ("roi_align", 2, (2, 3), {"sampling_ratio": 1, "aligned": True}),
    "align, many samples": ("roi_align", 2, (2, 2), {"sampling_ratio": 5, "aligned": True}),
    "align, adaptive": ("roi_align", 3, (3, 2), {"sampling_ratio": 0}),
    "align, adaptive, aligned": ("roi_align", 3, (2, 3), {"sampling_ratio": 0, "aligned": True}),
    "pool": ("roi_pool", 3, (3, 2), {}),
    "position-sensitive align": ("ps_roi_align", 12, (3, 2), {"sampling_ratio": 2}),
    "position-sensitive align, adaptive": ("ps_roi_align", 12, (2, 3), {"sampling_ratio": 0}),
    "position-sensitive pool": ("ps_roi_pool", 12, (3, 2), {}),
    "pyramid": ("multiscale", 2, (3, 3), {"sampling_ratio": 2}),
    "pyramid, adaptive": ("multiscale", 2, (2, 2), {"sampling_ratio": 0}),
}


def maps(name: str) -> list[np.ndarray]:
    """The maps of a case, [b, h, w, c]; of whole numbers for maxima, so that there are ties."""
    kind, channels, _, _ = CASES[name]
    sizes = PYRAMID if kind == "multiscale" else (MAP[1:],)
    values = [_uniform(f"{name} {k}", (MAP[0], *size, channels)) for k, size in enumerate(sizes)]
    return [np.round(3 * value) for value in values] if kind == "roi_pool" else values


def boxes(name: str) -> np.ndarray:
    """Boxes inside, over the border, outside, thin, of whole cells and larger than the map."""
    height, width = (n / SCALE for n in MAP[1:])
    drawn = (_uniform("boxes", (2, 5, 2, 2)) + 1) / 2 * np.float32([width, height])
    drawn = np.concatenate([drawn.min(2), drawn.max(2)], -1)
    special = [
        [-9, -6, 14, 11],
        [width - 10, height - 7, width + 13, height + 5],
        [8, 4, 20, 28],
        [17.3, 9.1, 17.9, 30.2],
        [-30, -20, width + 40, height + 50],
        [width + 9, height + 9, width + 30, height + 30],
        [5, 6, 6.5, 7.5],
    ]
    special = np.broadcast_to(np.float32(special), (2, len(special), 4))
    return np.concatenate([drawn, special], 1).astype(np.float32)


def cotangent(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """What the values' gradient is taken with, [b, n, oh, ow, c]."""
    return _uniform(f"{name} cotangent", shape)


def main() -> None:
    import torch

    if folder := os.environ.get("TORCHVISION_OPERATORS"):
        sys.path.insert(0, folder)
        import tv_stub  # noqa: F401
    from torchvision import ops

    found: dict[str, np.ndarray] = {}
    for name, (kind, _, bins, options) in CASES.items():
        values = [torch.tensor(m).movedim(-1, 1).requires_grad_() for m in maps(name)]
        rois = list(torch.tensor(boxes(name)))
        if kind == "multiscale":
            names = [str(k) for k in range(len(values))]
            size, level = CANONICAL
            pool = ops.MultiScaleRoIAlign(
                names, bins, **options, canonical_scale=size, canonical_level=level
            )
            shape = tuple(4 * n for n in PYRAMID[0])
            y = pool(dict(zip(names, values, strict=True)), rois, [shape] * MAP[0])
        else:
            y = getattr(ops, kind)(values[0], rois, bins, spatial_scale=SCALE, **options)
        y = y.unflatten(0, (MAP[0], -1)).movedim(2, -1)
        gradients = torch.autograd.grad(y, values, torch.tensor(cotangent(name, tuple(y.shape))))
        found[f"{name}/value"] = y.detach().numpy()
        for k, gradient in enumerate(gradients):
            found[f"{name}/gradient {k}"] = gradient.movedim(1, -1).numpy()
    np.savez_compressed(GOLDEN, **found)
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
