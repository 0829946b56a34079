"""Trains a network of each family on Fashion-MNIST with one budget, and plots what came of it.

    python benchmarks/families.py --data-dir DIR [--only NAME ...]

Everyone sees the same images in the same order with the same recipe, which suits none of them in
particular; networks for large images are fed 32x32 ones, and the large ones are made narrower. What
is plotted is the test accuracy against the multiply-adds of one image and against the time that
training took after compilation. Results are added to benchmarks/families.json as they come; the
plot is docs/images/families.png and needs matplotlib.
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from jaxvision import models
from jaxvision.inspect import layers, totals
from jaxvision.tasks import configuration
from jaxvision.train import run
from jaxvision.train.writers import read_metrics, write_atomically

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "families.json"
PICTURE = ROOT / "docs" / "images" / "families.png"
SIDE, IMAGES, EPOCHS, BATCH = 32, 20_000, 2, 128

NETWORKS: dict[str, dict[str, Any]] = {
    "linear": {},
    "mlp_256x2": {},
    "lenet5": {},
    "squeezenet1_1": {},
    "googlenet": {"aux_logits": False},
    "resnet8_cifar": {},
    "resnet20_cifar": {},
    "resnet18": {},
    "seresnet18": {},
    "densenet121": {},
    "mobilenetv1_100": {},
    "mobilenet_v2": {},
    "shufflenet_v2_x1_0": {},
    "vit_tiny_patch16_224": {"patch_size": 4, "width": 96, "depth": 6},
    "swin_tiny_patch4_window7_224": {
        "patch_size": 2,
        "width": 24,
        "depths": (2, 2, 2),
        "num_heads": (1, 2, 4),
        "window": 4,
    },
    "mixer_s16_224": {"patch_size": 4, "width": 64, "depth": 4},
    "beit_base_patch16_224": {"patch_size": 4, "width": 64, "depth": 4, "num_heads": 2},
}


def train(name: str, options: dict[str, Any], data_dir: str) -> dict[str, Any]:
    """One network's result."""
    config = configuration.load(str(ROOT / "configs/classification/fashion_mnist.py"))
    config.data.dir, config.data.train = data_dir, f"train[:{IMAGES}]"
    config.data.cache = True
    config.data.train_transforms = ({"name": "resize", "size": SIDE},)
    config.data.eval_transforms = config.data.train_transforms
    config.data.augment = ({"name": "flip_horizontal"},)
    config.model.name, config.model.options = name, options
    config.optimizer.name, config.optimizer.nesterov = "adamw", False
    config.optimizer.learning_rate, config.optimizer.weight_decay = 2e-3, 0.05
    config.optimizer.clip_norm = 1.0
    config.train.batch_size, config.train.duration = BATCH, f"{EPOCHS} epochs"
    config.train.log_every, config.eval.every = 39, f"{EPOCHS} epochs"
    config.eval.pictures, config.log.tensorboard = 0, False
    lines = layers(models.create(name, 10, **options), (SIDE, SIDE, 1))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = run(config, folder)
        whole = time.perf_counter() - start
        records = [r for r in read_metrics(Path(folder) / "metrics.jsonl") if r["split"] == "train"]
    rates = [record["images_per_second"] for record in records[1:]]
    seen = EPOCHS * (IMAGES // BATCH) * BATCH
    return {
        "options": options,
        "accuracy": result["accuracy"],
        "parameters": totals(lines).parameters,
        "multiply_adds": totals(lines).multiply_adds,
        "images_per_second": sum(rates) / len(rates),
        "training_seconds": seen / (sum(rates) / len(rates)),
        "whole_seconds": whole,
    }


def plot(results: dict[str, dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (by_work, by_time) = pyplot.subplots(
        1, 2, figsize=(12, 5), layout="constrained", sharey=True
    )
    for axes, key, label in (
        (by_work, "multiply_adds", "multiply-adds of one 32x32 image"),
        (by_time, "training_seconds", "seconds of training"),
    ):
        for number, (name, result) in enumerate(results.items()):
            axes.plot(result[key], 100 * result["accuracy"], "o")
            axes.annotate(
                name.partition("_patch")[0],
                (result[key], 100 * result["accuracy"]),
                xytext=(5, 3 - 9 * (number % 2)),
                textcoords="offset points",
                fontsize=8,
            )
        axes.set(xlabel=label, xscale="log")
        axes.margins(x=0.16)
        axes.grid(alpha=0.3)
    by_work.set(ylabel="Fashion-MNIST test accuracy, %")
    figure.suptitle(f"{EPOCHS} epochs of {IMAGES:,} images, one recipe for all")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110)
    print(f"Wrote {PICTURE}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True, help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--only", nargs="*", default=list(NETWORKS), help="networks to train")
    options = parser.parse_args()
    stored = json.loads(RESULTS.read_text())["networks"] if RESULTS.is_file() else {}
    for name in options.only:
        stored[name] = train(name, NETWORKS[name], options.data_dir)
        ordered = {key: stored[key] for key in NETWORKS if key in stored}
        machine = f"{platform.processor() or platform.machine()}, {jax.devices()[0].device_kind}"
        content = {"machine": machine, "jax": jax.__version__, "networks": ordered}
        write_atomically(RESULTS, json.dumps(content, indent=1) + "\n")
        jax.clear_caches()
        print(f"{name}: {stored[name]['accuracy']:.4f} in {stored[name]['training_seconds']:.0f} s")
    plot({key: stored[key] for key in NETWORKS if key in stored})


if __name__ == "__main__":
    main()
