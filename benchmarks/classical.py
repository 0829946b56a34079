"""Accuracy and time of the classifiers of `jaxvision classify` beside scikit-learn's.

    python benchmarks/classical.py --data-dir DIR [--methods knn-l2 svm ...] [--train N] [--test N]
        [--json FILE] [--markdown docs/classical.md]

DIR holds the four idx files of Fashion-MNIST. Both sides get the same images in the same order and
options of the same meaning; times are of one run, features, fitting and predicting together, ours
with compiling. Methods that were measured before stay in FILE, and the table of the page between
`<!-- results -->` and `<!-- end -->` is written from it. Needs scikit-learn and scikit-image.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxvision.commands import classify, features
from jaxvision.commands.features import Split

ROOT = Path(__file__).parents[1]
METHODS = {
    "knn-l2": ("knn", "--metric", "l2"),
    "knn-l1": ("knn", "--metric", "l1"),
    "knn-cosine": ("knn", "--metric", "cosine"),
    "softmax": ("softmax",),
    "svm": ("svm",),
    "svm-crammer-singer": ("svm", "--loss", "crammer_singer"),
    "hog-svm": ("hog-svm",),
    "bow-svm": ("bow-svm",),
}
PEERS = {
    "knn-l2": "KNeighborsClassifier(5, algorithm='brute')",
    "knn-l1": "KNeighborsClassifier(5, metric='manhattan', algorithm='brute')",
    "knn-cosine": "KNeighborsClassifier(5, metric='cosine')",
    "softmax": "LogisticRegression(max_iter=1000)",
    "svm": "LinearSVC(dual=False)",
    "svm-crammer-singer": "LinearSVC(multi_class='crammer_singer')",
    "hog-svm": "skimage hog, LinearSVC(dual=False)",
    "bow-svm": "the same SIFT, KMeans(200), LinearSVC(dual=False)",
}
_L1_QUERIES = 500  # of scikit-learn's search; its time is scaled to all


def parse(arguments: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    classify.add_arguments(parser)
    return parser.parse_args(arguments)


def peer(name: str, train: Split, test: Split) -> tuple[dict, np.ndarray]:
    """(accuracy and seconds of scikit-learn, its predictions)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import LinearSVC

    options = parse(METHODS[name])
    start = time.perf_counter()
    queries, truth, scale = test, test.labels, 1.0
    of_images: Callable = features.pixels
    if options.method == "knn":
        metric = {"l1": "manhattan", "l2": "euclidean", "cosine": "cosine"}[options.metric]
        model = KNeighborsClassifier(options.k, metric=metric, algorithm="brute")
        if options.metric == "l1":
            queries = Split(test.images[:_L1_QUERIES], test.labels[:_L1_QUERIES], test.class_names)
            truth, scale = queries.labels, len(test.labels) / len(queries.labels)
    else:
        c = classify.default_c(options.method, len(train.labels))
        if name == "softmax":
            model = LogisticRegression(C=c, max_iter=1000)
        elif name == "svm-crammer-singer":
            model = LinearSVC(C=c, multi_class="crammer_singer", random_state=0)
        else:
            model = LinearSVC(C=c, dual=False)
        if name == "hog-svm":
            of_images = skimage_hog
    x, z = (
        sklearn_bags(train.images, test.images, parse(METHODS[name]))
        if name == "bow-svm"
        else (of_images(train.images), of_images(queries.images))
    )
    model.fit(x, train.labels)
    predicted = model.predict(z)
    seconds = (time.perf_counter() - start) * scale
    accuracy = float(np.mean(predicted == truth))
    return {"accuracy": accuracy, "seconds": round(seconds, 1), "test": len(truth)}, predicted


def skimage_hog(images: np.ndarray) -> np.ndarray:
    from skimage.feature import hog

    found = [hog(i[..., 0], 9, (4, 4), (2, 2), "L2-Hys") for i in images]
    return np.stack(found).astype(np.float32)


def sklearn_bags(train: np.ndarray, test: np.ndarray, options: argparse.Namespace):
    """As `jaxvision classify` makes them, with scikit-learn's k-means."""
    from sklearn.cluster import KMeans

    from jaxvision.classical import bag_of_words as bags

    size = classify.enlarged(train[:1]).shape[1:3]
    places = bags.grid(size, options.step, options.patch)
    cells = bags.pyramid_cells(places, size, options.levels)

    def describe(images: np.ndarray) -> np.ndarray:
        return bags.dense_sift(classify.enlarged(images), places, options.patch)

    some = np.random.default_rng(0).permutation(len(train))[:2000]
    sample = bags.sample_descriptors(describe(train[some]), 50_000)
    words = KMeans(options.words, n_init=1, max_iter=50, random_state=0).fit(sample)

    def histograms(images: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(images), 1000):
            descriptors = describe(images[start : start + 1000]).astype(np.float32)
            labels = words.predict(descriptors.reshape(-1, 128)).reshape(descriptors.shape[:2])
            part = bags.pyramid_histogram(labels, cells, options.words, options.norm)
            found.append(np.asarray(part))
        return np.concatenate(found)

    return histograms(train), histograms(test)


def ours(name: str, train: Split, test: Split) -> tuple[dict, np.ndarray]:
    start = time.perf_counter()
    result = classify.classify(train, test, parse(METHODS[name]))
    found = {
        "accuracy": result.accuracy,
        "seconds": round(time.perf_counter() - start, 1),
        "test": len(test.labels),
        "description": result.description,
        "stages": {stage: round(value, 2) for stage, value in result.seconds.items()},
        **result.details,
    }
    return found, result.predicted


def table(results: dict) -> str:
    lines = [
        "| method | images | ours | s | scikit-learn | s | same predictions | its classes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in METHODS:
        if name not in results:
            continue
        row = results[name]
        a, b = row["ours"], row["sklearn"]
        few = f" (first {b['test']})" if b["test"] != a["test"] else ""
        lines.append(
            f"| {name} | {row['train']:,} / {a['test']:,} | {a['accuracy']:.2%} | "
            f"{a['seconds']:.1f} | {b['accuracy']:.2%}{few} | {b['seconds']:.1f} | "
            f"{row['same']:.2%} | `{PEERS[name]}` |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--train", type=int, default=0, help="fit on the first N (default: all)")
    parser.add_argument("--test", type=int, default=0, help="test on the first N (default: all)")
    parser.add_argument("--json", default=str(ROOT / "benchmarks" / "classical.json"))
    parser.add_argument("--markdown", default=str(ROOT / "docs" / "classical.md"))
    options = parser.parse_args()
    config = features.configured(
        str(ROOT / "configs" / "classification" / "fashion_mnist.py"),
        None,
        {"data.dir": options.data_dir},
    )
    train = features.read_split(config, "train", options.train)
    test = features.read_split(config, "test", options.test)
    path, page = Path(options.json), Path(options.markdown)
    results = json.loads(path.read_text()) if path.is_file() else {}
    for name in options.methods:
        mine, predicted = ours(name, train, test)
        theirs, expected = peer(name, train, test)
        results[name] = {
            "train": len(train.labels),
            "cores": os.cpu_count(),
            "ours": mine,
            "sklearn": theirs,
            "same": float(np.mean(predicted[: len(expected)] == expected)),
        }
        path.write_text(json.dumps(results, indent=2) + "\n")
        print(table({name: results[name]}).splitlines()[-1], flush=True)
    text = page.read_text()
    head, rest = text.split("<!-- results -->")
    tail = rest.split("<!-- end -->")[1]
    page.write_text(f"{head}<!-- results -->\n\n{table(results)}\n\n<!-- end -->{tail}")


if __name__ == "__main__":
    main()
