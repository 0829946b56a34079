"""Search for an architecture with a controller that learns, beside random search."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvision.errors import UserError

if TYPE_CHECKING:
    import jax
    import numpy as np

    from jaxvision.commands.features import Split
    from jaxvision.search import Data, Round, Space
    from jaxvision.search.strategies import Reward

_LARGEST = 16  # pixels a side: the search is for images that are smaller


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE[:VARIANT]", help="names the data")
    parser.add_argument("--rounds", type=int, default=30, help="default 30")
    parser.add_argument("--children", type=int, default=16, help="networks a round (default 16)")
    parser.add_argument("--steps", type=int, default=60, help="training of a network (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="decides everything (default 0)")
    parser.add_argument("--train", type=int, default=0, metavar="N", help="use N images (0: all)")
    parser.add_argument("--output", default="search", help="folder for search.json and search.png")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    import json

    from jaxvision.commands.features import read_split
    from jaxvision.search import Space, train_children
    from jaxvision.tasks import configuration
    from jaxvision.train import compilation
    from jaxvision.train.writers import write_atomically

    for name in ("rounds", "children", "steps"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is at least 1, got {getattr(options, name)}.")
    config = configuration.load(options.config, overrides)
    compilation.use_cache(config.compilation_cache)
    split = read_split(config, config.data.train, options.train)
    data = divided(split, options.seed)
    space, classes = Space(), len(split.class_names)
    print(
        f"{space.size:,} networks; {options.rounds} rounds of {options.children}, each trained for "
        f"{options.steps} steps on {len(data.train_labels)} images and rewarded by "
        f"{len(data.valid_labels)}"
    )

    def accuracy(decisions: "jax.Array", key: "jax.Array") -> "jax.Array":
        return train_children(space, decisions, key, data, classes, options.steps)

    found = _searched(space, accuracy, options)
    result = {name: _judged(name, space, accuracy, found[name], options) for name in found}
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "search.json", json.dumps(result, indent=1) + "\n")
    plot(result, folder / "search.png")
    print(f"Wrote {folder}/search.json and search.png")


def divided(split: "Split", seed: int) -> "Data":
    """Small images to train on, and others to reward by.

    Args:
      split: the images; halved until a side is below 16 pixels.
      seed: decides which images are held out.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxvision.search import Data

    images = jnp.asarray(split.images, jnp.float32) / 255
    while min(images.shape[1:3]) >= _LARGEST:
        images = images[:, : images.shape[1] // 2 * 2, : images.shape[2] // 2 * 2]
        count, height, width, channels = images.shape
        images = jax.image.resize(images, (count, height // 2, width // 2, channels), "linear")
    held = len(images) * 3 // 10  # to reward by
    order = np.random.default_rng(seed).permutation(len(images))
    valid, train = order[:held], order[held:]
    labels = jnp.asarray(split.labels, jnp.int32)
    return Data(images[train], labels[train], images[valid], labels[valid])


def _searched(
    space: "Space", accuracy: "Reward", options: argparse.Namespace
) -> "dict[str, list[Round]]":
    """The rounds of both strategies, by name; a line is printed for each."""
    from jaxvision.search import random_search, reinforce

    found: dict[str, list[Round]] = {}
    for name, strategy in (("reinforce", reinforce), ("random", random_search)):
        found[name] = []
        for one in strategy(space, accuracy, options.rounds, options.children, options.seed):
            found[name].append(one)
            print(
                f"{name:9} round {len(found[name]):3}/{options.rounds}  "
                f"mean {one.accuracies.mean():.4f}  best {one.accuracies.max():.4f}"
            )
    return found


def _judged(
    name: str,
    space: "Space",
    accuracy: "Reward",
    rounds: "list[Round]",
    options: argparse.Namespace,
) -> dict[str, Any]:
    """A strategy's result: its best network, trained again from several initial weights."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    best = chosen(rounds)
    again = np.asarray(
        accuracy(jnp.tile(best, (options.children, 1)), jax.random.key(options.seed + 1))
    )
    result = {
        "best": space.describe(best),
        "accuracy": float(again.mean()),
        "standard_error": float(again.std() / len(again) ** 0.5),
        "mean": [float(one.accuracies.mean()) for one in rounds],
        "best_of_round": [float(one.accuracies.max()) for one in rounds],
    }
    print(
        f"{name}: {result['best']}: {again.mean():.4f} +- "
        f"{result['standard_error']:.4f} over {len(again)} initial weights"
    )
    return result


def chosen(rounds: "list[Round]") -> "np.ndarray":
    """The decisions of the network with the best mean accuracy over the times it was trained."""
    import numpy as np

    decisions = np.concatenate([one.decisions for one in rounds])
    accuracies = np.concatenate([one.accuracies for one in rounds])
    networks, which = np.unique(decisions, axis=0, return_inverse=True)
    which = which.reshape(-1)
    totals = np.bincount(which, accuracies)
    counts = np.bincount(which)
    # A network seen once may have been lucky: count one more result, the average of all.
    means = (totals + accuracies.mean()) / (counts + 1)
    return networks[means.argmax()]


def plot(result: dict, path: Path) -> None:
    """Mean and best accuracy of each round, for both strategies."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for (name, one), colour in zip(result.items(), ("tab:blue", "tab:orange")):
        rounds = range(1, len(one["mean"]) + 1)
        axes.plot(rounds, one["mean"], color=colour, label=f"{name}: mean of a round")
        axes.plot(rounds, one["best_of_round"], ":", color=colour, label=f"{name}: its best")
    axes.set(xlabel="round", ylabel="validation accuracy")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncol=4, fontsize=9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
