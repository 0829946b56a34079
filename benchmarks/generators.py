"""Trains the generators of configs/generation/fashion_mnist.py by one budget and compares them.

    python benchmarks/generators.py --data DIR --judge RUN [--only NAME ...] [--runs FOLDER]
        [--ended] [--samples 5000]

DIR has the files of Fashion-MNIST; RUN is a run of configs/classification/fashion_mnist.py, by
whose features images are judged. A run that is already in the folder of runs is resumed or, if it
has ended, only read; with `--ended` others are left out. Samples are compared with all test images:
FID, KID, precision and recall, beside as many training images and as many draws of a Gaussian that
is fitted to the pixels of all of these. Networks without a prior are judged by reconstructions of
test images. Written as they come are benchmarks/generators.json and docs/images/generators.png, a
row of samples for each. The table is printed as Markdown.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from report import machine, table
from trained import all_runs, parser_of

from jaxvision import plugins, runs
from jaxvision.commands.features import read_split
from jaxvision.metrics import frechet_distance
from jaxvision.metrics.features import kernel_distance, precision_and_recall
from jaxvision.runs.sampling import sample
from jaxvision.tasks import configuration
from jaxvision.train.compilation import compiler_options
from jaxvision.train.writers import write_atomically

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "generation" / "fashion_mnist.py"
RESULTS = ROOT / "benchmarks" / "generators.json"
PICTURE = ROOT / "docs" / "images" / "generators.png"
SIDE, SHOWN, ENLARGED, MARGIN, BATCH = 28, 16, 56, 130, 500
BASELINES = ("training images", "Gaussian of pixels")


def fitted(images: np.ndarray) -> np.ndarray:
    """The middle 28 x 28 pixels."""
    top, left = ((side - SIDE) // 2 for side in images.shape[1:3])
    return images[:, top : top + SIDE, left : left + SIDE]


def gaussian(images: np.ndarray, count: int) -> np.ndarray:
    """Draws of a Gaussian of the pixels of images."""
    flat = images.reshape(len(images), -1) / 255.0
    rng = np.random.default_rng(0)
    values, vectors = np.linalg.eigh(np.cov(flat, rowvar=False))
    spread = rng.standard_normal((count, len(values))) * np.sqrt(np.maximum(values, 0))
    drawn = np.clip(flat.mean(0) + spread @ vectors.T, 0, 1)
    return np.round(255 * drawn).astype(np.uint8).reshape(count, *images.shape[1:])


def made(trained: Any, images: np.ndarray, count: int) -> np.ndarray:
    """Samples, or of networks without a prior, reconstructions of some images."""
    if getattr(trained.task, "compares_samples", True):
        return sample(trained, count)
    return np.stack([one.outputs["image"] for one in trained.predict(list(images[:count]))])


class Judge:
    """What a classifier's features say of images, beside those of the test."""

    def __init__(self, folder: Path, real: np.ndarray):
        trained = runs.open(folder, "tested")
        features = jax.jit(trained.task.features, compiler_options=compiler_options())
        self._features = lambda images: np.concatenate(
            [
                np.asarray(features(trained.variables, images[i : i + BATCH]))
                for i in range(0, len(images), BATCH)
            ]
        )
        self._real = self._features(real)

    def __call__(self, images: np.ndarray) -> dict[str, float]:
        found = self._features(images)
        precision, recall = precision_and_recall(self._real, found)
        return {
            "fid": frechet_distance(self._real, found),
            "kid": kernel_distance(self._real, found),
            "precision": precision,
            "recall": recall,
        }


def row(name: str, images: np.ndarray) -> Image.Image:
    """A name and some images beside it."""
    strip = Image.new("L", (MARGIN + SHOWN * ENLARGED, ENLARGED), 255)
    pen = ImageDraw.Draw(strip)
    pen.text((6, ENLARGED // 2 - 8), name, fill=0, font=ImageFont.load_default(13))
    for place, image in enumerate(images[:SHOWN]):
        tile = Image.fromarray(image[..., 0]).resize((ENLARGED, ENLARGED), Image.Resampling.NEAREST)
        strip.paste(tile, (MARGIN + place * ENLARGED, 0))
    return strip


def rows_before(names: list[str]) -> dict[str, Image.Image]:
    """The rows of the picture as it is."""
    if not names:
        return {}
    picture = Image.open(PICTURE)
    assert picture.height == ENLARGED * len(names), f"{PICTURE} has other rows than {RESULTS}."
    boxes = [(0, y * ENLARGED, picture.width, (y + 1) * ENLARGED) for y in range(len(names))]
    return {name: picture.crop(box) for name, box in zip(names, boxes, strict=True)}


def draw(rows: Mapping[str, Image.Image]) -> None:
    """All rows, one below the other."""
    width = next(iter(rows.values())).width
    canvas = Image.new("L", (width, ENLARGED * len(rows)))
    for y, strip in enumerate(rows.values()):
        canvas.paste(strip, (0, y * ENLARGED))
    canvas.save(PICTURE)


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of docs/generation.md."""
    head = ["", "parameters", "steps", "FID", "KID", "precision", "recall", "images/s, sampled"]
    lines = [
        [
            name if name in BASELINES else f"`{name}`",
            f"{one['parameters'] / 1e6:.2f} M" if "parameters" in one else "",
            f"{one['step']:,}" if "step" in one else "",
            f"{one['fid']:.2f}",
            f"{one['kid']:.4f}",
            f"{one['precision']:.3f}",
            f"{one['recall']:.3f}",
            f"{one['images_per_second']:.0f}" if "images_per_second" in one else "",
        ]
        for name, one in sorted(results.items(), key=lambda item: item[1]["fid"])
    ]
    return table(head, lines)


def main() -> None:
    variants = plugins.import_file(CONFIG).VARIANTS
    networks = [name for name in variants if name and not name.endswith("smoke")]
    parser = parser_of(__doc__.splitlines()[0], networks)
    parser.add_argument("--data", type=Path, required=True, help="folder of the four files")
    parser.add_argument("--judge", type=Path, required=True, help="run of a classifier")
    parser.add_argument("--samples", type=int, default=5000, help="images to be judged")
    options = parser.parse_args()
    config = configuration.load(f"{CONFIG}:vae", {"data.dir": str(options.data)})
    train, test = (fitted(read_split(config, split).images) for split in ("train", "test"))
    judge = Judge(options.judge, test)
    results = json.loads(RESULTS.read_text())["networks"] if RESULTS.is_file() else {}
    rows = rows_before(list(results))

    def keep(name: str, images: np.ndarray, about: dict[str, Any]) -> None:
        results[name] = {**about, **judge(images)}
        rows[name] = row(name, images)
        content = {"machine": machine(), "samples": options.samples, "networks": results}
        write_atomically(RESULTS, json.dumps(content, indent=1) + "\n")
        draw({name: rows[name] for name in results})
        print(f"{name}: FID {results[name]['fid']:.2f}", flush=True)

    if not results:
        chosen = np.random.default_rng(1).permutation(len(train))[: options.samples]
        keep(BASELINES[0], train[chosen], {})
        keep(BASELINES[1], gaussian(train, options.samples), {})
    overrides = {"data.dir": str(options.data)}
    for name, workdir, metrics in all_runs(options, networks, CONFIG, "fashion", overrides):
        trained = runs.open(workdir, "latest")
        made(trained, test, min(64, options.samples))  # compiles
        start = time.perf_counter()
        images = made(trained, test, options.samples)
        seconds = time.perf_counter() - start
        parameters = sum(leaf.size for leaf in jax.tree.leaves(trained.variables["params"]))
        about = {
            "step": metrics["step"],
            "parameters": parameters,
            "images_per_second": options.samples / seconds,
        }
        keep(name, fitted(images), about)
    print(markdown(results))


if __name__ == "__main__":
    main()
