"""Measure a run's features by labels: the vote of neighbours, and a linear classifier.

    jaxvision probe runs/mae --config configs/classification/cifar10.py --config.data.dir=DIR
    jaxvision probe runs/mae --config configs/classification/cifar10.py --baselines --map map.png

Both learn from `data.train` of the config file and are tested on `data.test`; images are brought
to the run's size by its own evaluation transforms. `--baselines` measures the same network with
random weights, and pixels, too. `--map` draws the test images as points of a plane, coloured by
class: by their two principal components, or with `--by tsne` by t-SNE (van der Maaten and Hinton
2008), which keeps neighbours together and wants scikit-learn.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvision.commands import source

if TYPE_CHECKING:
    import numpy as np

    from jaxvision.commands.features import Split


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--config", metavar="FILE[:VARIANT]", required=True, help="config file with labelled data"
    )
    source.add_checkpoint(parser)
    parser.add_argument("--baselines", action="store_true", help="random weights and pixels, too")
    parser.add_argument("--train", type=int, default=0, metavar="N", help="learn from the first N")
    parser.add_argument("--test", type=int, default=0, metavar="N", help="test on the first N")
    parser.add_argument("--k", type=int, default=20, help="neighbours that vote (default 20)")
    parser.add_argument("--epochs", type=int, default=100, help="of the linear classifier")
    parser.add_argument("--map", metavar="FILE", help="draw the test features there, a .png")
    parser.add_argument("--by", default="pca", help="of the map: pca (default) or tsne")
    parser.add_argument("--json", metavar="FILE", help="also write the result there")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    import json

    from jaxvision.commands import features
    from jaxvision.errors import UserError, unknown
    from jaxvision.tasks import configuration
    from jaxvision.train.step import init_variables
    from jaxvision.train.weights import run_spec
    from jaxvision.train.writers import write_atomically

    if options.by not in _PLANES:
        raise unknown("plane in --by", options.by, _PLANES)
    if options.map and not options.map.lower().endswith(".png"):
        raise UserError(f"--map={options.map} must end in .png.")
    for name in ("k", "epochs"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name}={getattr(options, name)} must be at least 1.")
    config = configuration.load(options.config, overrides)
    trained = source.open_stored(options.workdir, options.checkpoint)
    config.data.channels = trained.config.data.channels
    config.data.eval_transforms = trained.config.data.eval_transforms
    train = features.read_split(config, config.data.train, options.train)
    tested_on = config.data.test or config.data.validation
    test = features.read_split(config, tested_on, options.test)
    seen = [features.of_run(trained, split.images) for split in (train, test)]
    both = {"trained": seen}
    if options.baselines:
        spec = run_spec(Path(options.workdir), trained.step)
        fresh = init_variables(trained.task, trained.config.seed, spec)
        both["random weights"] = [
            features.of_run(trained, split.images, fresh) for split in (train, test)
        ]
        both["pixels"] = [features.pixels(split.images) for split in (train, test)]
    found = {
        name: _measured(x, z, train, test, options.k, options.epochs)
        for name, (x, z) in both.items()
    }
    print(
        f"{len(train.labels)} images of {config.data.train} to learn from, {len(test.labels)} of "
        f"{tested_on} to test on, {seen[0].shape[1]} features"
    )
    for name, one in found.items():
        before = f"{name}: " if options.baselines else ""
        print(
            f"{before}knn_accuracy {one['knn_accuracy']:.4f}  "
            f"linear_accuracy {one['linear_accuracy']:.4f} (rate {one['rate']:g})"
        )
    if options.map:
        plane = _PLANES[options.by](seen[1])
        _draw(plane, test, options.by, Path(options.map))
        print(f"Wrote {options.map}")
    if options.json:
        content = {"step": trained.step, "split": tested_on, **found}
        write_atomically(Path(options.json), json.dumps(content, indent=1) + "\n")


def _measured(
    x: "np.ndarray", z: "np.ndarray", train: "Split", test: "Split", neighbours: int, epochs: int
) -> dict[str, float]:
    """Both accuracies of features of the two splits, and the rate of the linear classifier."""
    from jaxvision.classical.probes import knn_accuracy, linear_probe

    probe = linear_probe(x, train.labels, z, test.labels, len(train.class_names), epochs)
    return {
        "knn_accuracy": knn_accuracy(x, train.labels, z, test.labels, neighbours),
        "linear_accuracy": probe.accuracy,
        "rate": probe.rate,
    }


def _by_pca(features: "np.ndarray") -> "np.ndarray":
    import numpy as np

    from jaxvision.classical.pca import pca, transform

    return np.asarray(transform(features, pca(features, 2)))


def _by_tsne(features: "np.ndarray") -> "np.ndarray":
    from jaxvision.errors import UserError

    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise UserError("--by tsne wants scikit-learn: pip install scikit-learn.") from None
    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(features)


_PLANES = {"pca": _by_pca, "tsne": _by_tsne}


def _draw(plane: "np.ndarray", test: "Split", kind: str, path: Path) -> None:
    """Points of a plane, coloured by class."""
    from matplotlib.figure import Figure

    figure = Figure((7, 6), layout="constrained")
    axes = figure.subplots()
    for index, name in enumerate(test.class_names):
        points = plane[test.labels == index]
        colour = f"C{index}" if len(test.class_names) <= 10 else None
        axes.scatter(points[:, 0], points[:, 1], s=12, c=colour, label=name, alpha=0.8)
    axes.set_title({"pca": "Two principal components", "tsne": "t-SNE"}[kind])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.savefig(path, dpi=120)
