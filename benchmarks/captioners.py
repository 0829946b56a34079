"""Trains the networks of configs/captioning/shapes.py by one budget and compares them.

    python benchmarks/captioners.py [--only NAME ...] [--runs FOLDER] [--ended]

A run that is already in the folder of runs is resumed or, if it has ended, only read; with
`--ended` others are left out. Written to benchmarks/captioners.json, as they come, are the metrics
of the test scenes, how often the size, colour, class and place of a scene's main shape are named
rightly, parameters, and captions a second after compilation: of loss and gradients, and found, in
batches of 32. docs/images/captioners.jpg has some scenes with what each network of the file says.
The table is printed as Markdown, over what captions say that look at no image.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from report import machine, table
from trained import all_runs, arguments, learning_seconds, predicting_seconds

from jaxvision import runs
from jaxvision.data.annotations.caption import texts_of
from jaxvision.data.sources import open_split
from jaxvision.metrics.captioning import bleu, cider, words
from jaxvision.presets import CAPTIONERS
from jaxvision.tasks import pictures
from jaxvision.train import mesh
from jaxvision.train.beginning import open_loader
from jaxvision.train.evaluation import Evaluator
from jaxvision.train.writers import write_atomically

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "captioning" / "shapes.py"
RESULTS = ROOT / "benchmarks" / "captioners.json"
PICTURE = ROOT / "docs" / "images" / "captioners.jpg"
WATCHED = ("bleu4", "rouge_l", "cider", "perplexity", "distinct")
NAMED = ("size", "colour", "class", "place")
BATCH, SCENES = 32, 6


def parts(caption: str) -> tuple[str, ...]:
    """Size, colour, class and place of a scene's main shape, as its caption names them."""
    said = words(caption)
    end = said.index("with") if "with" in said else len(said)
    return (*(said + [""] * 4)[1:4], " ".join(said[4:end]))


def named_rightly(found: Sequence[str], true: Sequence[str]) -> dict[str, float]:
    """The share of captions that name each as the true ones do."""
    equal = [[a == b for a, b in zip(parts(f), parts(t))] for f, t in zip(found, true)]
    return dict(zip(NAMED, np.mean(equal, 0).tolist()))


def result(workdir: Path) -> dict[str, Any]:
    """What a run has come to, what its network costs, and what it says of some test scenes."""
    trained = runs.open(workdir, "latest")
    config = trained.config.copy_and_resolve_references()
    devices = mesh.make(config)
    loader = open_loader(config, config.data.test, devices, train=False, facts=trained.facts)
    evaluator = Evaluator(trained.task, config.seed)
    evaluator(trained.variables, loader.batches())
    found = trained.task.texts(evaluator.rows["found"])
    true = [one for one, *_ in trained.task.references(evaluator.rows)]
    batch = next(iter(loader.batches()))
    return {
        **named_rightly(found, true),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(trained.variables["params"])),
        "training_captions_per_second": BATCH / learning_seconds(trained, batch),
        "captions_per_second": BATCH / predicting_seconds(trained, batch),
        "says": found[:SCENES],
    }


def without_images(workdir: Path) -> dict[str, dict[str, float]]:
    """Of the captions of a run's data: how good the commonest is, and one drawn for each scene."""
    config = runs.open(workdir, "latest").config.copy_and_resolve_references()
    train, test = (captions_in(config, split) for split in (config.data.train, config.data.test))
    (commonest, _), *_ = Counter(train).most_common(1)
    drawn = np.random.default_rng(0).choice(train, len(test)).tolist()
    guesses = {"the commonest caption": [commonest] * len(test), "a training caption": drawn}
    references = [[one] for one in test]
    return {
        name: {
            "bleu4": float(bleu(guess, references)[3]),
            "cider": cider(guess, references),
            **named_rightly(guess, test),
        }
        for name, guess in guesses.items()
    }


def captions_in(config: Any, split: str) -> list[str]:
    """The first caption of each record of a split."""
    source = open_split(config.data, split)
    return [texts_of(source[index], source.name(index))[0] for index in range(len(source))]


def draw(workdir: Path, results: dict[str, dict[str, Any]]) -> None:
    """Some test scenes over what is true of them and what each network says."""
    trained = runs.open(workdir, "latest")
    config = trained.config.copy_and_resolve_references()
    devices = mesh.make(config)
    loader = open_loader(config, config.data.test, devices, train=False, facts=trained.facts)
    images = np.asarray(next(iter(loader.batches()))["image"])[:SCENES]
    images = images.repeat(4, 1).repeat(4, 2)
    truth = captions_in(config, config.data.test)[:SCENES]
    texts = [
        "\n".join(
            [f"TRUE: {true}", *(f"{name}: {one['says'][i]}" for name, one in results.items())]
        )
        for i, true in enumerate(truth)
    ]
    tiles = [
        pictures.captioned_grid(image[None], [text], [False]) for image, text in zip(images, texts)
    ]
    height = max(tile.shape[0] for tile in tiles)
    padded = [np.pad(t, ((0, height - len(t)), (0, 0), (0, 0)), constant_values=255) for t in tiles]
    rows = [np.concatenate(padded[at : at + 3], 1) for at in range(0, SCENES, 3)]
    Image.fromarray(np.concatenate(rows)).save(PICTURE, quality=90, subsampling=0)


def markdown(results: dict[str, dict[str, Any]], blind: dict[str, dict[str, float]]) -> str:
    """The table of docs/captioning.md."""
    head = ["network", "BLEU-4", "CIDEr", "perplexity", *NAMED]
    head += ["parameters", "steps", "captions/s, training", "found"]
    named = [
        [name, f"{one['bleu4']:.3f}", f"{one['cider']:.2f}", ""]
        + [f"{one[key]:.0%}" for key in NAMED]
        + [""] * 4
        for name, one in blind.items()
    ]
    lines = [
        [
            f"`{name}`",
            f"{one['bleu4']:.3f}",
            f"{one['cider']:.2f}",
            f"{one['perplexity']:.2f}",
            *(f"{one[key]:.0%}" for key in NAMED),
            f"{one['parameters'] / 1e6:.2f} M",
            f"{one['step']:,}",
            f"{one['training_captions_per_second']:.0f}",
            f"{one['captions_per_second']:.0f}",
        ]
        for name, one in sorted(results.items(), key=lambda item: -item[1]["cider"])
    ]
    return table(head, lines + named)


def main() -> None:
    options = arguments(__doc__.splitlines()[0], CAPTIONERS)
    results = json.loads(RESULTS.read_text())["networks"] if RESULTS.is_file() else {}
    blind: dict[str, dict[str, float]] = {}
    for name, workdir, metrics in all_runs(options, CAPTIONERS, CONFIG, "captions"):
        blind = blind or without_images(workdir)
        results[name] = {**{key: metrics[key] for key in ("step", *WATCHED)}, **result(workdir)}
        content = {"machine": machine(), "networks": results, "without_images": blind}
        write_atomically(RESULTS, json.dumps(content, indent=1) + "\n")
        draw(workdir, results)
        print(f"{name}: BLEU-4 {metrics['bleu4']:.3f}, CIDEr {metrics['cider']:.2f}", flush=True)
    print(markdown(results, blind))


if __name__ == "__main__":
    main()
