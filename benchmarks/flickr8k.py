"""Trains captioners on Flickr8k and compares them with captions that no network wrote.

    python benchmarks/flickr8k.py --data FLICKR8K --encoder FILE [--only NAME ...] [--runs FOLDER]
        [--splits train[:750] train[750:825] train[825:]]

FLICKR8K and FILE are those of configs/captioning/flickr8k.py. A run that is there is resumed or
only read. Written to benchmarks/flickr8k.json are the metrics of the test photographs; beside them
those of the training caption that is most like all others (by CIDEr-D), and of the first caption
of the training photograph whose features are nearest (cosine of the mean of the encoder's last
map). docs/images/flickr8k.jpg has ten test photographs with what all say, flickr8k_attention.jpg
what `show_attend_tell` looked at in two. The table is printed as Markdown.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from report import machine, table
from trained import metrics_of

from jaxvision import runs
from jaxvision.data.annotations.caption import text_of
from jaxvision.metrics.captioning import bleu, cider, cider_d, distinct
from jaxvision.tasks import pictures
from jaxvision.tasks.captioning import report as shown
from jaxvision.train import mesh
from jaxvision.train.beginning import open_loader
from jaxvision.train.writers import write_atomically

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "captioning" / "flickr8k.py"
RESULTS = ROOT / "benchmarks" / "flickr8k.json"
IMAGES = ROOT / "docs" / "images"
NETWORKS = ("show_attend_tell", "cnn_transformer", "nic")
COMPARED, SHOWN, MOST = 200, 10, 300


def photographs(trained: runs.Run, split: str) -> tuple[np.ndarray, np.ndarray, list[list[str]]]:
    """(images, features of the encoder, captions) of a split, without transforms of training."""
    config = trained.config.copy_and_resolve_references()
    loader = open_loader(config, split, mesh.make(config), train=False, facts=trained.facts)

    @jax.jit
    def features(image: jax.Array) -> jax.Array:
        seen = trained.task.inputs.evaluate(image)
        memory = trained.task.model.apply(trained.variables, seen, method="encode")
        mean = memory["places"].mean((1, 2))
        return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)

    images, vectors, captions = [], [], []
    for batch in loader.batches():
        there = np.asarray(batch["valid"])
        images.append(np.asarray(batch["image"])[there])
        vectors.append(np.asarray(features(batch["image"]))[there])
        for texts, known in zip(
            *(np.asarray(batch[k])[there] for k in ("caption", "caption_valid"))
        ):
            captions.append([text_of(text) for text, is_one in zip(texts, known) if is_one])
    return np.concatenate(images), np.concatenate(vectors), captions


def most_typical(captions: Sequence[Sequence[str]]) -> str:
    """Of the first captions the one that is most like those of all photographs."""
    rng = np.random.default_rng(0)
    candidates = [
        captions[i][0] for i in rng.choice(len(captions), min(MOST, len(captions)), False)
    ]
    others = [captions[i] for i in rng.choice(len(captions), min(COMPARED, len(captions)), False)]
    scores = [np.mean(cider_d([one] * len(others), others)) for one in candidates]
    return candidates[int(np.argmax(scores))]


def scores(found: Sequence[str], true: Sequence[Sequence[str]]) -> dict[str, float]:
    values = {f"bleu{n}": float(value) for n, value in enumerate(bleu(found, true), start=1)}
    return {**values, "cider": cider(found, true), "distinct": distinct(found)}


def found_by(trained: runs.Run, images: np.ndarray) -> tuple[list[str], dict[str, np.ndarray]]:
    """The captions of images, and the outputs of the first two."""
    predict = jax.jit(trained.task.predict)
    texts: list[str] = []
    first: dict[str, np.ndarray] = {}
    for start in range(0, len(images), 25):
        outputs = predict(
            trained.variables, {"image": jnp.asarray(images[start : start + 25])}, jax.random.key(0)
        )
        texts += trained.task.texts(np.asarray(outputs["tokens"]))
        first = first or {name: np.asarray(value)[:2] for name, value in outputs.items()}
    return texts, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of Flickr8k")
    parser.add_argument("--file", default="captions.txt", help="of the captions")
    parser.add_argument("--encoder", required=True, help="SqueezeNet's weights")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NAME")
    parser.add_argument(
        "--splits", nargs=3, default=("train[:80%]", "train[80%:90%]", "train[90%:]")
    )
    options = parser.parse_args()
    train, validation, test = options.splits
    overrides = {
        "data.dir": options.data,
        "data.options": f"{{'file': '{options.file}', 'images': 'images', 'skip_missing': True}}",
        "data.train": train,
        "data.validation": validation,
        "data.test": test,
        "model.encoder_weights": options.encoder,
    }
    said: dict[str, list[str]] = {}
    results: dict[str, dict[str, float]] = {}
    images = np.empty(0)
    for name in options.only:
        workdir = options.runs / f"flickr8k_{name}"
        metrics = metrics_of(f"{CONFIG}:{name}", workdir, overrides, train=True) or {}
        trained = runs.open(workdir)
        if not said:
            _, known, captions = photographs(trained, train)
            images, wanted, true = photographs(trained, test)
            nearest = (wanted @ known.T).argmax(1)
            said["nearest"] = [captions[place][0] for place in nearest]
            said["typical"] = [most_typical(captions)] * len(true)
            results = {one: scores(texts, true) for one, texts in said.items()}
        said[name], first = found_by(trained, images)
        results[name] = scores(said[name], true)
        results[name] |= {key: metrics[key] for key in ("step", "perplexity", "rouge_l")}
        if "attention" in first and name == NETWORKS[0]:
            drawn = [
                shown.attention_picture(
                    trained.task, images[row], {key: value[row] for key, value in first.items()}
                )
                for row in range(2)
            ]
            wide = max(one.shape[1] for one in drawn)
            padded = [
                np.pad(d, ((0, 0), (0, wide - d.shape[1]), (0, 0)), constant_values=255)
                for d in drawn
            ]
            looked = Image.fromarray(np.concatenate(padded))
            looked.save(IMAGES / "flickr8k_attention.jpg", quality=90)
        content = {"machine": machine(), "splits": list(options.splits), "networks": results}
        write_atomically(RESULTS, json.dumps(content, indent=1) + "\n")
        print(f"{name}: CIDEr {results[name]['cider']:.3f}", flush=True)
    texts = [
        "\n".join([f"TRUE: {true[row][0]}", *(f"{name}: {one[row]}" for name, one in said.items())])
        for row in range(SHOWN)
    ]
    picture = pictures.captioned_grid(images[:SHOWN], texts, [False] * SHOWN, columns=5)
    Image.fromarray(picture).save(IMAGES / "flickr8k.jpg", quality=90)
    head = ["captions of", *(f"BLEU-{n}" for n in range(1, 5)), "CIDEr", "distinct"]
    lines = [
        [
            name,
            *(f"{one[f'bleu{n}']:.3f}" for n in range(1, 5)),
            f"{one['cider']:.3f}",
            f"{one['distinct']:.0%}",
        ]
        for name, one in sorted(results.items(), key=lambda item: -item[1]["cider"])
    ]
    print(table(head, lines))


if __name__ == "__main__":
    main()
