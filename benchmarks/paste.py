"""Masks of 100 objects on a photograph of 12 megapixels: ours beside torchvision's pasting.

    python benchmarks/paste.py [--torch PYTHON] [--objects 100] [--size 4000 3000] [--repeat 3]

Both put grids of 28x28 probabilities on the same boxes (sides of 2 to 40 % of the photograph's) and
keep what is above one half. Each runs in a process of its own, torchvision under `PYTHON`, this one
by default if it can import torch. Shown are the median of the seconds, also with the run lengths
that result files want, and by how much the process has grown at most; and the share of pixels, of
those in either mask, in which the two differ. Where torchvision's compiled operators do not load,
`TORCHVISION_OPERATORS` names a folder with a module `tv_stub` that defines them. It needs about
twice four bytes for each pixel and object.
"""

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # this project, where it is not installed

import numpy as np
from report import table
from workers import Worker, interleaved, peak_memory, serve


def drawn(objects: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """(grids [k, 28, 28] of smooth probabilities, boxes [k, 4])."""
    rng = np.random.default_rng(0)
    basis = np.cos(np.arange(4)[:, None] * np.linspace(0, np.pi, 28))
    logits = 3 * np.einsum("kij,iy,jx->kyx", rng.normal(size=(objects, 4, 4)), basis, basis)
    sides = rng.uniform(0.02, 0.4, (objects, 2)) * [width, height]
    low = rng.uniform(0, 1, (objects, 2)) * ([width, height] - sides)
    grids = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return grids, np.concatenate([low, low + sides], -1).astype(np.float32)


class Side:
    """What one of the processes answers."""

    def __init__(self, paste: Callable[..., Any], encode: Callable[[Any], list[dict[str, Any]]]):
        self._paste, self._encode = paste, encode

    def __call__(self, command: str, **given: Any) -> Any:
        if command == "prepare":
            grids, boxes = drawn(given["objects"], *given["size"])
            self._arguments = grids, boxes, tuple(given["size"][::-1])
            self._paste(*drawn(1, 64, 64), (64, 64))  # the first one loads what later ones have
            self._before = peak_memory()
            return None
        start = time.perf_counter()
        found = self._paste(*self._arguments)
        seconds = time.perf_counter() - start
        if command == "paste":
            return seconds, peak_memory() - self._before
        codes = self._encode(found)
        return codes if command == "codes" else time.perf_counter() - start


def ours() -> Side:
    from jaxvision.data.masks import Crops, paste

    return Side(paste, Crops.to_rle)


def theirs() -> Side:
    import torch

    if folder := os.environ.get("TORCHVISION_OPERATORS"):
        sys.path.insert(0, folder)
        import tv_stub  # noqa: F401
    from pycocotools import mask as tools
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    def paste(grids: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> Any:
        given = torch.from_numpy(grids)[:, None], torch.from_numpy(boxes)
        return paste_masks_in_image(*given, size)[:, 0] > 0.5

    def encode(masks: Any) -> list[dict[str, Any]]:
        codes = [tools.encode(np.asfortranarray(mask.numpy())) for mask in masks]
        return [{**code, "counts": code["counts"].decode()} for code in codes]

    return Side(paste, encode)


def differing(codes: list[Any], others: list[Any]) -> float:
    """The share of the pixels in either mask that are in one alone."""
    from pycocotools import mask as tools

    shared, united = (
        sum(int(tools.area(tools.merge(list(pair), intersect))) for pair in zip(codes, others))
        for intersect in (True, False)
    )
    return 1 - shared / united


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 3000), metavar=("W", "H"))
    parser.add_argument("--repeat", type=int, default=3, help="rounds to take the median of")
    parser.add_argument("--torch", help="a Python that can import torchvision")
    parser.add_argument("--serve", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(ours() if options.serve == "ours" else theirs())
        return
    python = options.torch or (importlib.util.find_spec("torch") and sys.executable)
    sides = {"ours": Worker(sys.executable, __file__, "--serve", "ours")}
    if python:
        sides["torchvision"] = Worker(python, __file__, "--serve", "theirs")
    lines, codes = [], []
    try:
        for name, side in sides.items():
            side.ask(command="prepare", objects=options.objects, size=list(options.size))
            memory = side.ask(command="paste")[1]
            runs = {
                "paste": lambda side=side: side.ask(command="paste")[0],
                "encode": lambda side=side: side.ask(command="encode"),
            }
            times = interleaved(runs, options.repeat)
            codes.append(side.ask(command="codes"))
            seconds = [f"{times[key]:.3f}" for key in ("paste", "encode")]
            lines.append([name, *seconds, f"{memory / 2**20:.0f}"])
            side.close()
    finally:
        for side in sides.values():
            side.close()
    print(table(["", "seconds", "with run lengths, seconds", "memory, MiB"], lines))
    if len(codes) > 1:
        print(f"\nPixels in one mask alone: {differing(*codes):.1e} of those in either")


if __name__ == "__main__":
    main()
