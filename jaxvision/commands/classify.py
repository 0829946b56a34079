"""Fit a classifier without training a network: neighbours, linear, hand-made features.

    jaxvision classify knn --config configs/classification/fashion_mnist.py --metric l1 --k 5
    jaxvision classify bow-svm --config configs/classification/digits.py
    jaxvision classify svm --features runs/fashion_mnist

Fits on `data.train` and tests on `data.test`. knn, softmax and svm take pixels, or with
`--features` what the last layer of a trained network sees.
"""

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvision.commands import source
from jaxvision.errors import UserError, unknown

if TYPE_CHECKING:
    import numpy as np

    from jaxvision.commands.features import Split

METHODS = ("knn", "softmax", "svm", "hog-svm", "bow-svm")
_SVMS = ("squared_hinge", "crammer_singer", "weston_watkins")
_CHUNK = 1000  # images whose hand-made features are computed at a time
_MOST_LANDMARKS = 3000  # of the intersection kernel
_SHOWN = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument(
        "--config", metavar="FILE[:VARIANT]", help="config file that names the data"
    )
    parser.add_argument("--features", metavar="WORKDIR", help="classify a trained run's features")
    source.add_checkpoint(parser)
    parser.add_argument("--train", type=int, default=0, metavar="N", help="fit on the first N only")
    parser.add_argument("--test", type=int, default=0, metavar="N", help="test on the first N only")
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    parser.add_argument("--picture", metavar="FILE", help="write a picture of some predictions")
    parser.add_argument("--metric", default="l2", help="knn: l1, l2 (default) or cosine")
    parser.add_argument("--k", type=int, default=5, help="knn: neighbours that vote (default 5)")
    parser.add_argument("--weights", default="uniform", help="knn: uniform (default) or distance")
    parser.add_argument("--c", type=float, help="softmax, svm: weight of the data, per image")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="softmax, svm: of gradients")
    parser.add_argument("--loss", default="squared_hinge", help=f"svm: {', '.join(_SVMS)}")
    parser.add_argument("--cell", type=int, default=4, help="hog: pixels of a cell (default 4)")
    parser.add_argument("--words", type=int, default=200, help="bow: vocabulary (default 200)")
    parser.add_argument("--levels", type=int, default=3, help="bow: of the pyramid (default 3)")
    parser.add_argument("--patch", type=int, default=16, help="bow: pixels of a patch (default 16)")
    parser.add_argument("--step", type=int, default=6, help="bow: between patches (default 6)")
    parser.add_argument("--norm", default="power", help="bow: power (default), l2, l1 or none")
    parser.add_argument("--kernel", default="linear", help="bow: linear (default), intersection")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    import json

    from jaxvision.commands import features
    from jaxvision.train.writers import write_atomically

    check(options)
    config = features.configured(options.config, options.features, overrides)
    train = features.read_split(config, config.data.train, options.train)
    spec = config.data.test or config.data.validation
    test = features.read_split(config, spec, options.test)
    result = classify(train, test, options)
    seconds = result.seconds
    print(result.description)
    print(
        f"{spec}: accuracy {result.accuracy:.2%} ({result.correct} of {len(test.labels)}), "
        f"fitted on {len(train.labels)}; "
        + ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    )
    if options.json:
        found = {
            "method": options.method,
            "description": result.description,
            "split": spec,
            "train": len(train.labels),
            "test": len(test.labels),
            "accuracy": result.accuracy,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            **result.details,
        }
        write_atomically(Path(options.json), json.dumps(found, indent=2) + "\n")
    if options.picture:
        _picture(test, result, Path(options.picture))
        print(f"Wrote {options.picture}")


@dataclass
class Result:
    """What `classify` found; `seconds` by stage include compiling."""

    description: str
    predicted: "np.ndarray"
    correct: int
    accuracy: float
    seconds: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)


def check(options: argparse.Namespace) -> None:
    """Raises UserError where the options contradict each other or name nothing known."""
    from jaxvision.classical import bag_of_words, neighbours

    for name, valid in (
        ("method", METHODS),
        ("metric", neighbours.METRICS),
        ("weights", neighbours.WEIGHTS),
        ("loss", _SVMS),
        ("norm", bag_of_words.NORMS),
        ("kernel", ("linear", "intersection")),
    ):
        if getattr(options, name) not in valid:
            raise unknown(name, getattr(options, name), valid)
    if options.features and "-" in options.method:
        raise UserError(f"{options.method} has features of its own; leave --features out.")
    for name in ("k", "cell", "words", "levels", "patch", "step"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name}={getattr(options, name)} must be at least 1.")


def classify(train: "Split", test: "Split", options: argparse.Namespace) -> Result:
    """Fits the method of the options on one split and predicts the other."""
    check(options)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError("Images of the two splits differ in size.")
    clock = _Clock()
    x, z, features = _features(train, test, options)
    clock.stop("features")
    if options.method == "knn":
        predicted, what, details = _by_neighbours(x, z, train, options, clock)
    else:
        predicted, what, details = _by_a_line(x, z, train, options, clock)
    correct = int((predicted == test.labels).sum())
    details["dimensions"] = int(x.shape[1])
    return Result(
        f"{what} on {features}", predicted, correct, correct / len(test.labels), clock.seconds,
        details,
    )  # fmt: skip


class _Clock:
    """Seconds since the last stop, by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self._last = now - self._last, now


def _by_neighbours(x, z, train: "Split", options: argparse.Namespace, clock: _Clock):
    import jax.numpy as jnp
    import numpy as np

    from jaxvision.classical.neighbours import nearest_neighbours, vote

    distances, indices = nearest_neighbours(z, x, options.k, options.metric)
    votes = jnp.asarray(train.labels)[indices]
    predicted = np.asarray(vote(votes, distances, len(train.class_names), options.weights))
    clock.stop("predict")
    what = f"{options.k} nearest neighbours ({options.metric}, {options.weights} votes)"
    return predicted, what, {"k": options.k, "metric": options.metric}


def _by_a_line(x, z, train: "Split", options: argparse.Namespace, clock: _Clock):
    import numpy as np

    from jaxvision.classical import linear

    loss = "softmax" if options.method == "softmax" else options.loss
    c = default_c(options.method, len(x)) if options.c is None else options.c
    classes = len(train.class_names)
    found = linear.fit(x, train.labels, classes, loss, c=c, tolerance=options.tolerance)
    clock.stop("fit")
    predicted = np.asarray(linear.scores(found.model, z).argmax(-1))
    clock.stop("predict")
    name = "Softmax regression" if loss == "softmax" else f"Linear SVM ({loss})"
    details = {
        "loss": loss,
        "c": c,
        "objective": found.objective,
        "iterations": found.iterations,
        "converged": found.converged,
    }
    return predicted, f"{name}, c={c:g}, {found.iterations} L-BFGS iterations,", details


def default_c(method: str, count: int) -> float:
    """What did well on held-out training images of Fashion-MNIST, for `count` images."""
    return {"softmax": 2000, "svm": 200, "hog-svm": 600, "bow-svm": 10_000}[method] / count


# -- features -------------------------------------------------------------------------------------


def _features(train: "Split", test: "Split", options: argparse.Namespace):
    """(of the training images, of the others, in words)."""
    import numpy as np

    from jaxvision.commands import features

    if options.method == "hog-svm":
        x, z = (_hog(split.images, options.cell) for split in (train, test))
        return x, z, f"{x.shape[1]} HOG features"
    if options.method == "bow-svm":
        return _bags(train.images, test.images, options)
    if not options.features:
        x, z = features.pixels(train.images), features.pixels(test.images)
        return x, z, f"{x.shape[1]} pixels"
    images = np.concatenate([train.images, test.images])
    both = features.deep(Path(options.features), images, options.checkpoint)
    x, z = both[: len(train.images)], both[len(train.images) :]
    if options.method != "knn":  # of unit scale, as what is fitted wants it
        mean, std = x.mean(0), x.std(0)
        x, z = ((v - mean) / np.where(std == 0, 1, std) for v in (x, z))
    return x, z, f"{x.shape[1]} features of {options.features}"


def _chunks(count: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, count, _CHUNK)]


def _hog(images: "np.ndarray", cell: int) -> "np.ndarray":
    import numpy as np

    from jaxvision.classical.hog import hog

    parts = [np.asarray(hog(images[s], 9, (cell, cell), (2, 2))) for s in _chunks(len(images))]
    return np.concatenate(parts)


def enlarged(images: "np.ndarray", least: int = 32) -> "np.ndarray":
    """Images of `least` pixels or more a side, by a whole factor: SIFT blurs away smaller ones."""
    import cv2
    import numpy as np

    factor = -(-least // min(images.shape[1:3]))
    if factor <= 1:
        return images
    size = (images.shape[2] * factor, images.shape[1] * factor)
    large = [cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) for image in images]
    return np.stack(large).reshape(len(images), size[1], size[0], images.shape[-1])


def _bags(train: "np.ndarray", test: "np.ndarray", options: argparse.Namespace):
    import numpy as np

    from jaxvision.classical import bag_of_words as bags
    from jaxvision.classical.kmeans import kmeans

    size = enlarged(train[:1]).shape[1:3]
    places = bags.grid(size, options.step, options.patch)
    cells = bags.pyramid_cells(places, size, options.levels)

    def describe(images: np.ndarray) -> np.ndarray:
        return bags.dense_sift(enlarged(images), places, options.patch)

    some = np.random.default_rng(0).permutation(len(train))[: 2 * _CHUNK]
    sample = bags.sample_descriptors(describe(train[some]), 50_000)
    vocabulary = kmeans(sample, min(options.words, len(sample)), max_iter=50).centers
    kernel = options.kernel == "intersection"
    # Of the intersection only without a norm of its own is the pyramid's weighting Lazebnik's.
    norm = "l1" if kernel else options.norm

    def histograms(images: np.ndarray) -> np.ndarray:
        words = (bags.words_of(describe(images[s]), vocabulary) for s in _chunks(len(images)))
        found = [np.asarray(bags.pyramid_histogram(w, cells, len(vocabulary), norm)) for w in words]
        return np.concatenate(found)

    x, z = histograms(train), histograms(test)
    what = f"{options.levels}-level pyramids of {len(vocabulary)} SIFT words"
    if kernel:
        landmarks = x[:_MOST_LANDMARKS]
        among = bags.histogram_intersection(landmarks, landmarks)
        x, z = (
            bags.kernel_features(among, bags.histogram_intersection(v, landmarks)) for v in (x, z)
        )
        what += f", intersection kernel ({len(landmarks)} landmarks)"
    return x, z, what


def _picture(test: "Split", result: Result, path: Path) -> None:
    """The first test images with what was predicted; wrong ones in red."""
    from PIL import Image

    from jaxvision.tasks import pictures

    names, shown = test.class_names, slice(0, _SHOWN)
    pairs = list(zip(result.predicted[shown], test.labels[shown]))
    captions = [names[p] + ("" if p == t else f" (is {names[t]})") for p, t in pairs]
    wrong = [bool(p != t) for p, t in pairs]
    grid = pictures.captioned_grid(test.images[shown], captions, wrong, columns=6)
    Image.fromarray(grid).save(path)
