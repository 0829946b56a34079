"""Draw the training images nearest to some test images, by pixels or by a network's features.

    jaxvision retrieve --config configs/classification/fashion_mnist.py --output pixels.png
    jaxvision retrieve --features runs/fashion_mnist --metric cosine --output features.png

As Krizhevsky et al. 2012, figure 4 right: in each row a test image, then its neighbours; neighbours
of another class are captioned in red.
"""

import argparse
from pathlib import Path

from jaxvision.commands import source
from jaxvision.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE[:VARIANT]", help="config file that names the data"
    )
    parser.add_argument("--features", metavar="WORKDIR", help="compare a trained run's features")
    source.add_checkpoint(parser)
    parser.add_argument("--metric", default="l2", help="l1, l2 (default) or cosine")
    parser.add_argument("--k", type=int, default=6, help="neighbours of each (default 6)")
    parser.add_argument("--queries", type=int, default=5, help="test images (default 5)")
    parser.add_argument("--train", type=int, default=0, metavar="N", help="search the first N only")
    parser.add_argument("--output", default="neighbours.png", help="picture to write")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    import numpy as np
    from PIL import Image

    from jaxvision.classical.neighbours import nearest_neighbours
    from jaxvision.commands import features
    from jaxvision.tasks import pictures

    if options.queries < 1:
        raise UserError(f"--queries={options.queries} must be at least 1.")
    config = features.configured(options.config, options.features, overrides)
    train = features.read_split(config, config.data.train, options.train)
    test = features.read_split(config, config.data.test or config.data.validation)
    chosen = one_of_each(test.labels, options.queries)
    queries, labels = test.images[chosen], test.labels[chosen]
    if options.features:
        folder = Path(options.features)
        images = np.concatenate([queries, train.images])
        vectors = features.deep(folder, images, options.checkpoint)
    else:
        vectors = np.concatenate([features.pixels(queries), features.pixels(train.images)])
    of_queries, of_keys = vectors[: len(queries)], vectors[len(queries) :]
    found = nearest_neighbours(of_queries, of_keys, options.k, options.metric)
    indices = np.asarray(found[1])
    same = train.labels[indices] == labels[:, None]
    shown, captions, wrong = [], [], []
    for query, label, row in zip(queries, labels, indices):
        shown += [query, *train.images[row]]
        near = train.labels[row]
        captions += [f"query: {test.class_names[label]}", *(train.class_names[n] for n in near)]
        wrong += [False, *(bool(n != label) for n in near)]
    grid = pictures.captioned_grid(np.stack(shown), captions, wrong, columns=options.k + 1)
    Image.fromarray(grid).save(options.output)
    space = f"features of {options.features}" if options.features else "pixels"
    print(
        f"{same.mean():.1%} of the {options.k} neighbours of {len(queries)} test images by "
        f"{options.metric} of {space} are of their class. Wrote {options.output}"
    )


def one_of_each(labels, count: int):
    """Indices of `count` samples: the first of every class, then the second, and so on."""
    import numpy as np

    turn = np.zeros(len(labels), int)
    for label in np.unique(labels):
        here = np.flatnonzero(labels == label)
        turn[here] = np.arange(len(here))
    return np.lexsort((labels, turn))[:count]
