"""Trains the networks of configs/detection/shapes.py by one budget and compares them.

    python benchmarks/detectors.py [--only NAME ...] [--runs FOLDER] [--ended]

A run that is already in the folder of runs is resumed or, if it has ended, only read; with
`--ended` others are left out. Written to benchmarks/detectors.json, as they come, are the metrics
of the test scenes, parameters, multiply-adds of an image, and images a second after compilation:
of loss and gradients, and of boxes, in batches of 32. docs/images/detectors.jpg has a row for the
truth and one for each network of that file, in its order. The table is printed as Markdown.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from report import machine, table
from trained import all_runs, arguments, learning_seconds, predicting_seconds

from jaxvision import plugins, runs, tasks
from jaxvision.inspect import layers, totals
from jaxvision.train import mesh
from jaxvision.train.beginning import open_loader
from jaxvision.train.writers import write_atomically

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "detection" / "shapes.py"
RESULTS = ROOT / "benchmarks" / "detectors.json"
PICTURE = ROOT / "docs" / "images" / "detectors.jpg"
WATCHED = ("ap", "ap50", "ap75", "ap_small", "ap_medium")
BATCH, SCENES = 32, 8
# In pixels. A row is a multiple of 16 high, so that rows that are saved again stay what they are.
SIDE, MARGIN, GAP = 156, 144, 4


def result(workdir: Path) -> dict[str, Any]:
    """What a run has come to, what its network costs, and pictures of some test scenes."""
    trained = runs.open(workdir, "latest")
    config = trained.config.copy_and_resolve_references()
    loader = open_loader(config, config.data.test, mesh.make(config), train=False)
    batch = next(iter(loader.batches()))
    total = totals(layers(trained.model, batch["image"].shape[1:]))
    task = trained.task
    found = jax.device_get(jax.jit(task.predict)(trained.variables, batch, jax.random.key(0)))
    return {
        "parameters": total.parameters,
        "multiply_adds": total.multiply_adds,
        "training_images_per_second": BATCH / learning_seconds(trained, batch),
        "inference_images_per_second": BATCH / predicting_seconds(trained, batch),
        "scenes": [pair(task, batch, found, place) for place in range(SCENES)],
    }


def pair(task: Any, batch: Any, found: Any, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of one scene: its true boxes, and those found."""

    def only(arrays: Any) -> dict[str, np.ndarray]:
        return {name: np.asarray(value)[row : row + 1] for name, value in arrays.items()}

    drawn = tasks.report("detection").picture(task, only(batch), only(found))
    # A grid of two columns, the second of which is empty; in the first the pair side by side.
    truth, guess, *_ = np.split(drawn, 4, axis=1)
    return truth, guess


def row(name: str, scenes: Sequence[np.ndarray]) -> Image.Image:
    """A name and scenes beside it."""
    strip = Image.new("RGB", (MARGIN + SCENES * (SIDE + GAP), SIDE + GAP), "white")
    pen = ImageDraw.Draw(strip)
    pen.text((6, SIDE // 2 - 10), name, fill="black", font=ImageFont.load_default(18))
    for x, scene in enumerate(scenes):
        tile = Image.fromarray(scene).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        strip.paste(tile, (MARGIN + x * (SIDE + GAP), 0))
    return strip


def rows_before(names: Sequence[str]) -> dict[str, Image.Image]:
    """The rows of the picture as it is: of the truth and of these networks."""
    if not names:
        return {}
    picture, step = Image.open(PICTURE), SIDE + GAP
    boxes = [(0, y * step, picture.width, (y + 1) * step) for y in range(len(names) + 1)]
    assert picture.height == boxes[-1][3], f"{PICTURE} has other rows than {RESULTS}."
    return {name: picture.crop(box) for name, box in zip(("truth", *names), boxes)}


def draw(rows: Mapping[str, Image.Image]) -> None:
    """All rows, one below the other."""
    width, height = next(iter(rows.values())).size
    canvas = Image.new("RGB", (width, height * len(rows)))
    for y, strip in enumerate(rows.values()):
        canvas.paste(strip, (0, y * height))
    canvas.save(PICTURE, quality=80, subsampling=0)


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """The table of docs/detection.md."""
    head = ["network", "AP", "AP50", "AP75", "small", "medium", "parameters", "multiply-adds"]
    head += ["steps", "images/s, training", "inference"]
    lines = [
        [
            f"`{name}`",
            *(f"{one[key]:.3f}" for key in WATCHED),
            f"{one['parameters'] / 1e6:.2f} M",
            f"{one['multiply_adds'] / 1e9:.2f} G",
            f"{one['step']:,}",
            f"{one['training_images_per_second']:.0f}",
            f"{one['inference_images_per_second']:.0f}",
        ]
        for name, one in sorted(results.items(), key=lambda item: -item[1]["ap50"])
    ]
    return table(head, lines)


def main() -> None:
    networks = plugins.import_file(CONFIG).NETWORKS
    options = arguments(__doc__.splitlines()[0], networks)
    results = json.loads(RESULTS.read_text())["networks"] if RESULTS.is_file() else {}
    rows = rows_before(list(results))
    # SPP-net's convolutions are not trained: they are those of Fast R-CNN, which comes before.
    own = {"sppnet": {"model.encoder_weights": f"run:{options.runs / 'shapes_fastrcnn'}"}}
    for name, workdir, metrics in all_runs(options, networks, CONFIG, "shapes", own=own):
        one = result(workdir)
        truth, found = zip(*one.pop("scenes"))
        rows = {**rows, "truth": row("truth", truth), name: row(name, found)}
        results[name] = {**{key: metrics[key] for key in ("step", *WATCHED)}, **one}
        content = {"machine": machine(), "networks": results}
        write_atomically(RESULTS, json.dumps(content, indent=1) + "\n")
        draw({name: rows[name] for name in ("truth", *results)})
        print(f"{name}: AP {metrics['ap']:.3f}, AP50 {metrics['ap50']:.3f}", flush=True)
    print(markdown(results))


if __name__ == "__main__":
    main()
