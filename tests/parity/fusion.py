"""Segments as mmdetection's `HeuristicFusionHead` makes them of objects and classes of pixels.

    python tests/parity/fusion.py

writes tests/parity/fusion.npz, which tests/ops/test_panoptic.py compares with. See README.md for
the environment, and paste.py for `TORCHVISION_OPERATORS`.
"""

import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import _uniform
from parity.paste import grids

GOLDEN = Path(__file__).parent / "fusion.npz"
IMAGES, SIZE, GRID = 4, (45, 62), (12, 16)
OBJECTS, THINGS, STUFF = 9, 4, 5
LIMITS = ((0.5, 300), (0.2, 100))  # overlap, and the least area of stuff


def inputs() -> dict[str, np.ndarray]:
    """Objects of each image from the surest on, of which not all are there, and logits of stuff."""
    drawn = (_uniform("boxes", (IMAGES, OBJECTS, 4)) + 1) / 2
    extent = (0.2 + 0.6 * drawn[..., 2:]) * np.float32(SIZE[::-1])
    corner = drawn[..., :2] * (np.float32(SIZE[::-1]) - 0.7 * extent)
    masks = np.stack([grids(f"image {k}", 14) for k in range(IMAGES)])
    # An object of which no pixel is sure.
    masks[0, 1] = 0.1
    return {
        "masks": masks,
        "boxes": np.concatenate([corner, corner + extent], -1).astype(np.float32),
        "labels": ((_uniform("labels", (IMAGES, OBJECTS)) + 1) / 2 * THINGS).astype(np.int32),
        "valid": np.arange(OBJECTS) < np.array([OBJECTS, 5, 0, 7])[:, None],
        "logits": _uniform("logits", (IMAGES, *GRID, STUFF + 1)),
    }


def main() -> None:
    import torch

    if folder := os.environ.get("TORCHVISION_OPERATORS"):
        sys.path.insert(0, folder)
        import tv_stub  # noqa: F401
    from parity.references import mmdet

    mmdet()
    from mmdet.models.seg_heads import HeuristicFusionHead
    from mmengine.config import ConfigDict
    from mmengine.structures import InstanceData
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    given = {key: torch.from_numpy(value) for key, value in inputs().items()}
    found = {}
    for overlap, area in LIMITS:
        options = ConfigDict(mask_overlap=overlap, stuff_area_limit=area)
        head = HeuristicFusionHead(THINGS, STUFF, test_cfg=options)
        objects, logits = [], []
        for row in range(IMAGES):
            kept = given["valid"][row]
            boxes = given["boxes"][row][kept]
            masks = paste_masks_in_image(given["masks"][row][kept][:, None], boxes, SIZE)
            objects.append(
                InstanceData(
                    bboxes=boxes,
                    scores=1 - torch.arange(len(boxes)) / 100,
                    labels=given["labels"][row][kept].long(),
                    masks=masks[:, 0] > 0.5,
                )
            )
            coarse = given["logits"][row].permute(2, 0, 1)[None]
            logits.append(torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")[0])
        maps = [one.sem_seg[0].numpy() for one in head.predict(objects, logits)]
        found[f"{overlap}/{area}"] = np.stack(maps).astype(np.int32)
    np.savez_compressed(GOLDEN, **found)
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes")
    for name, maps in found.items():
        print(name, [np.unique(one).tolist() for one in maps])


if __name__ == "__main__":
    main()
