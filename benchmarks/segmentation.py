"""Trains the networks of configs/segmentation/camvid.py by one budget and compares them on CamVid.

    python benchmarks/segmentation.py --data-dir DIR --runs runs [--encoder resnet18.safetensors]

DIR is as the configuration says. A run that is already in the folder of runs is resumed or, if it
has ended, only evaluated. With --encoder some networks are also trained from those weights
(`configs/classification/cifar10.py:encoder` makes them). Written are benchmarks/segmentation.json
and docs/images/camvid.png: columns of test frames, a row for the truth and one for each network;
with --photographs the frames above them, which are for research and not ours to publish. The table
is printed as Markdown.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxvision import models, runs
from jaxvision.data.codecs import decode_mask
from jaxvision.data.resizing import resize_mask
from jaxvision.inspect import layers, totals
from jaxvision.tasks import configuration, pictures
from jaxvision.train import run
from jaxvision.train.writers import read_metrics, write_atomically

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "segmentation.json"
PICTURE = ROOT / "docs" / "images" / "camvid.png"
NETWORKS = ("segnet", "fcn8s", "unet", "deeplabv3plus", "upernet")
FROM_ENCODER = ("upernet",)
SIZE, FRAMES, BATCH = (180, 240), (20, 90, 150, 210), 8
WATCHED = ("miou", "mean_class_accuracy", "pixel_accuracy")


def trained(name: str, data_dir: str, folder: Path, encoder: str) -> tuple[Path, dict[str, float]]:
    """(folder of the run, metrics of the test frames at half size)."""
    config = configuration.load(str(ROOT / f"configs/segmentation/camvid.py:{name}"))
    config.data.dir, config.model.encoder_weights = data_dir, encoder
    workdir = folder / (f"cv_{name}_pre" if encoder else f"cv_{name}")
    metrics = workdir / "metrics.jsonl"
    tested = [r for r in read_metrics(metrics) if r["split"] == "test"] if metrics.exists() else []
    found = tested[-1] if tested else run(config, workdir)
    return workdir, {key: found[key] for key in found if key not in ("step", "split")}


def speed(config: Any) -> float:
    """Images a second that are segmented, batches of eight at half size, after compilation."""
    model = models.create(config.model.name, 11, **config.model.options.to_dict())
    image = jnp.zeros((BATCH, *SIZE, 3))
    variables = jax.jit(lambda: model.init(jax.random.key(0), image[:1]))()
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False))
    jax.block_until_ready(apply(variables, image))
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(apply(variables, image))
        seconds.append(time.perf_counter() - start)
    return BATCH / float(np.median(seconds))


def at_full_size(workdir: Path, data_dir: str) -> dict[str, float]:
    """Metrics of the frames at 480x360, seen at half size and upsampled."""
    overrides = {
        "data.dir": data_dir,
        "data.eval_transforms": (),
        "segmentation.scales": (0.5,),
        "eval.batch_size": 1,
    }
    return runs.open(workdir, "latest", overrides).evaluate("test")[0]


def rows(workdirs: dict[str, Path], data_dir: str, photos: bool) -> dict[str, list[np.ndarray]]:
    """Pictures by row: photographs if wanted, truth, and what each network sees."""
    files = sorted(Path(data_dir, "test").glob("*.png"))
    files = [files[i] for i in FRAMES]
    masks = [decode_mask((Path(data_dir, "testannot") / f.name).read_bytes()) for f in files]
    truth = [resize_mask(np.where(m == 11, 255, m).astype(np.uint8), SIZE) for m in masks]
    found = {"truth": [pictures.colour_map(m) for m in truth]}
    if photos:
        frames = [np.asarray(Image.open(f).convert("RGB").resize(SIZE[::-1])) for f in files]
        found = {"photograph": frames, **found}
    for name, workdir in workdirs.items():
        predicted = runs.open(workdir, "latest").predict(files)
        found[name] = [pictures.colour_map(p.outputs["segmentation"]) for p in predicted]
    return found


def draw(table: dict[str, list[np.ndarray]]) -> None:
    height, width = SIZE
    margin, gap = 150, 4
    columns = max(len(row) for row in table.values())
    size = (margin + columns * (width + gap), len(table) * (height + gap))
    canvas, font = Image.new("RGB", size, "white"), ImageFont.load_default(18)
    pen = ImageDraw.Draw(canvas)
    for y, (name, row) in enumerate(table.items()):
        title, top = name.replace(", ", ",\n").replace("trained ", "\ntrained "), y * (height + gap)
        pen.multiline_text((6, top + height // 2 - 20), title, fill="black", font=font)
        for x, picture in enumerate(row):
            place = (margin + x * (width + gap), y * (height + gap))
            canvas.paste(Image.fromarray(picture), place)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(PICTURE, optimize=True)
    print(f"Wrote {PICTURE}")


def markdown(results: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| network | mIoU | class average | pixels | parameters | multiply-adds | images/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in results.items():
        shares = " | ".join(f"{100 * one[key]:.1f}" for key in WATCHED)
        lines.append(
            f"| {name} | {shares} | {one['parameters'] / 1e6:.1f} M | "
            f"{one['multiply_adds'] / 1e9:.2f} G | {one['images_per_second']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True, help="folder of CamVid")
    parser.add_argument("--runs", default="runs", help="folder of the runs")
    parser.add_argument("--encoder", default="", help="weights of a ResNet-18 to start from")
    parser.add_argument("--photographs", action="store_true", help="draw the frames too")
    parser.add_argument("--only", nargs="*", default=list(NETWORKS), help="networks to compare")
    options = parser.parse_args()
    wanted = [(name, "") for name in options.only]
    if options.encoder:
        wanted += [(name, options.encoder) for name in options.only if name in FROM_ENCODER]
    results: dict[str, dict[str, Any]] = {}
    workdirs = {}
    for name, encoder in wanted:
        title = f"{name}, encoder trained before" if encoder else name
        workdir, metrics = trained(name, options.data_dir, Path(options.runs), encoder)
        config = runs.stored_config(workdir)
        network = models.create(config.model.name, 11, **config.model.options.to_dict())
        total = totals(layers(network, (*SIZE, 3)))
        results[title] = {
            **metrics,
            "parameters": total.parameters,
            "multiply_adds": total.multiply_adds,
            "images_per_second": speed(config),
        }
        workdirs[title] = workdir
        jax.clear_caches()
    best = max(results, key=lambda name: results[name]["miou"])
    full = at_full_size(workdirs[best], options.data_dir)
    machine = f"{platform.processor() or platform.machine()}, {jax.devices()[0].device_kind}"
    content = {
        "machine": machine,
        "jax": jax.__version__,
        "half_size": results,
        "full_size": {best: full},
    }
    write_atomically(RESULTS, json.dumps(content, indent=1) + "\n")
    draw(rows(workdirs, options.data_dir, options.photographs))
    print(markdown(results))
    print(f"{best} at full size: mIoU {full['miou']:.3f}, pixels {full['pixel_accuracy']:.3f}")


if __name__ == "__main__":
    main()
