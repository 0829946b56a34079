"""Trains the methods of configs/pretraining/cifar10.py by one budget and judges their features.

    python benchmarks/pretrainers.py --data CIFAR [--only NAME ...] [--runs FOLDER] [--ended]
        [--camvid CAMVID]

CIFAR is the image folder of that file, CAMVID that of configs/segmentation/camvid.py. A run that
is already in the folder of runs is resumed or, if it has ended, only read; with `--ended` others
are left out. Beside the methods stand `supervised`, the same transformer trained with the labels;
and, as `transfer` of the method that has the best linear probe, runs that start from it and from
random weights: on 1,000 labelled images, and with `--camvid` of UPerNet. What `jaxvision probe`
says before and after training, losses and accuracies are written to benchmarks/pretrainers.json
as they come. docs/images/pretrainers.jpg has what each method made or found of test images. The
tables are printed as Markdown.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from report import machine, table
from trained import metrics_of, parser_of

from jaxvision import plugins
from jaxvision.train.writers import read_metrics, write_atomically

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
PRETRAINING = CONFIGS / "pretraining" / "cifar10.py"
METHODS = plugins.import_file(PRETRAINING).METHODS
CLASSIFIER = f"{CONFIGS / 'classification' / 'cifar10.py'}:vit"
TOKENS = f"{CONFIGS / 'pretraining' / 'dvae.py'}:cifar10"
CAMVID = f"{CONFIGS / 'segmentation' / 'camvid.py'}:upernet_vit"
FEW_LABELS = {"data.train": "train[:1000]", "train.duration": "100 epochs"}
RESULTS = ROOT / "benchmarks" / "pretrainers.json"
PICTURE = ROOT / "docs" / "images" / "pretrainers.jpg"
PROBES = ("knn_accuracy", "linear_accuracy")
DRAWN = ("reconstructions", "samples", "neighbours")  # the first that a run has
WIDTH, MARGIN, HEIGHT = 720, 130, 150  # of a row of the picture, in pixels


def judged(workdir: Path, data: str, step: int) -> dict[str, Any]:
    """What `jaxvision probe` says of a run, of random weights and of pixels, and losses."""
    file = workdir / "probe.json"
    command = [sys.executable, "-m", "jaxvision", "probe", str(workdir), "--config", CLASSIFIER]
    command += [f"--config.data.dir={data}", "--baselines", "--json", str(file)]
    subprocess.run(command, check=True)
    records = read_metrics(workdir / "metrics.jsonl")
    learned = [record["loss"] for record in records if record["split"] == "train"]
    losses = {"first_loss": learned[0], "last_loss": learned[-1]}
    return {**json.loads(file.read_text()), **losses, "step": step}


def strip(name: str, workdir: Path) -> np.ndarray:
    """A row of the picture: the name, and the upper part of what the run drew."""
    file = next(path for kind in DRAWN if (path := workdir / f"{kind}.png").is_file())
    drawn = Image.open(file).convert("RGB")
    size = (WIDTH - MARGIN, round(drawn.height * (WIDTH - MARGIN) / drawn.width))
    row = Image.new("RGB", (WIDTH, HEIGHT), "white")
    row.paste(drawn.resize(size, Image.Resampling.LANCZOS), (MARGIN, 0))
    pen = ImageDraw.Draw(row)
    pen.text((8, HEIGHT // 2 - 8), name, fill="black", font=ImageFont.load_default(16))
    return np.asarray(row)


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables of docs/pretraining.md."""
    head = ["features of", "20 neighbours, before", "after", "linear, before", "after"]
    probes, tuned = [], []
    for name, one in results.items():
        if "trained" in one:
            pair = one["random weights"], one["trained"]
            cells = [f"{100 * value[key]:.1f}" for key in PROBES for value in pair]
            loss = f"{one['first_loss']:.3f} to {one['last_loss']:.3f}"
            probes.append([f"`{name}`", *cells, loss, f"{one['step']:,}"])
            pixels = [f"{100 * one['pixels'][key]:.1f}" for key in PROBES]
        if "accuracy" in one:
            tuned.append([f"`{name}`", one.get("from", ""), f"{100 * one['accuracy']:.1f}"])
    if probes:
        probes.append(["pixels", "", pixels[0], "", pixels[1], "", ""])
    features = table([*head, "loss", "steps"], probes)
    return f"{features}\n\n{table(['run', 'starts from', 'accuracy or mIoU, %'], tuned)}"


def main() -> None:
    known = (*METHODS, "supervised", "transfer")
    parser = parser_of(__doc__.splitlines()[0], known)
    parser.add_argument("--data", required=True, help="folder of CIFAR-10")
    parser.add_argument("--camvid", help="folder of CamVid")
    options = parser.parse_args()
    wanted, train = options.only or known, not options.ended
    results = json.loads(RESULTS.read_text())["runs"] if RESULTS.is_file() else {}
    data = {"data.dir": options.data}

    def folder(name: str) -> Path:
        return options.runs / f"cifar10_{name}"

    def keep(name: str, one: dict[str, Any]) -> None:
        results[name] = one
        content = {"machine": machine(), "runs": results}
        write_atomically(RESULTS, json.dumps(content, indent=1) + "\n")

    for name in (name for name in METHODS if name in wanted):
        changes = dict(data)
        if name == "beit":  # its tokens come first
            metrics_of(TOKENS, folder("dvae"), data, train)
            changes["pretraining.tokenizer.weights"] = f"run:{folder('dvae')}"
        metrics = metrics_of(f"{PRETRAINING}:{name}", folder(name), changes, train)
        if metrics is not None:
            keep(name, judged(folder(name), options.data, metrics["step"]))
    if "supervised" in wanted:
        metrics = metrics_of(CLASSIFIER, folder("supervised"), data, train)
        if metrics is not None:
            one = judged(folder("supervised"), options.data, metrics["step"])
            keep("supervised", {**one, "accuracy": metrics["accuracy"]})
    methods = [name for name in METHODS if name in results]
    if "transfer" in wanted and methods:
        best = max(methods, key=lambda name: results[name]["trained"]["linear_accuracy"])
        kinds = [("1000_labels", CLASSIFIER, {**data, **FEW_LABELS}, "model.weights")]
        if options.camvid:
            kinds += [("camvid", CAMVID, {"data.dir": options.camvid}, "model.encoder_weights")]
        for kind, config, changes, key in kinds:
            own = {key: f"run:{folder(best)}", "optimizer.layer_decay": "0.75"}
            starts = {f"{kind}_{best}": own, f"{kind}_scratch": {}}
            for name, start in starts.items():
                metrics = metrics_of(config, folder(name), {**changes, **start}, train)
                if metrics is not None:
                    value = metrics["miou" if kind == "camvid" else "accuracy"]
                    keep(name, {"from": best if start else "", "accuracy": value})
    drawn = [strip(name, folder(name)) for name in methods if folder(name).is_dir()]
    if drawn:
        Image.fromarray(np.concatenate(drawn)).save(PICTURE, quality=85)
    print(markdown(results))


if __name__ == "__main__":
    main()
