"""Draw what a network sees: filters, maps, saliency, Grad-CAM, attention, patches, mistakes.

    jaxvision visualize filters --model alexnet --pretrained
    jaxvision visualize grad-cam --workdir runs/fashion_mnist boots.png
    jaxvision visualize patches --workdir runs/fashion_mnist --layer layer2_0 --channels 0,5
    jaxvision visualize misclassified --workdir runs/fashion_mnist --output mistakes.png

Every call writes one picture. docs/analysis.md shows them.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvision.commands import source
from jaxvision.errors import UserError, unknown

if TYPE_CHECKING:
    import jax
    import numpy as np
    from flax import linen as nn
    from ml_collections import ConfigDict

    from jaxvision.data.loader import Stream
    from jaxvision.tasks import Task
    from jaxvision.train.inference import Origin

RULES = ("gradient", "deconvnet", "guided")
_BATCH = 128

KINDS = {
    "filters": "the first convolution's filters (--layer: another on grey or colour images)",
    "activations": "channels of the map that a layer puts out for images",
    "saliency": "the gradient of a class or channel with respect to images, by three rules",
    "grad-cam": "where in images the last map speaks for a class",
    "attention": "what the class token attends to in images, by head",
    "rollout": "what the class token draws on through all blocks",
    "patches": "the patches of a split that excite channels most",
    "confusion": "the confusion matrix of a split",
    "misclassified": "the most confident mistakes on a split",
}
_OF_IMAGES = ("activations", "saliency", "grad-cam", "attention", "rollout")
_OF_SPLITS = ("patches", "confusion", "misclassified")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for kind, text in KINDS.items():
        sub = kinds.add_parser(kind, help=text, description=text, allow_abbrev=False)
        source.add_arguments(sub)
        sub.add_argument("--output", default=f"{kind}.png", help=f"default {kind}.png")
        if kind in _OF_IMAGES:
            sub.add_argument("inputs", nargs="+", help="image files and folders")
        if kind in _OF_SPLITS:
            sub.add_argument("--split", help="e.g. test, 'train[90%%:]' (default: data.test)")
        if kind in ("filters", "activations", "saliency", "grad-cam", "patches"):
            default = {"filters": "first convolution", "activations": "first map"}.get(
                kind, "the logits" if kind == "saliency" else "last map"
            )
            sub.add_argument("--layer", help=f"path as in `jaxvision inspect` (default: {default})")
        if kind in ("activations", "patches", "saliency"):
            sub.add_argument("--channels", metavar="N,N,...", help="of the layer")
        if kind == "saliency":
            sub.add_argument("--rule", default="all", help=f"{', '.join(RULES)} or all (default)")
        if kind in ("saliency", "grad-cam"):
            sub.add_argument("--label", help="class, by name or index (default: the predicted one)")
        if kind == "attention":
            sub.add_argument("--block", type=int, default=-1, help="from 0 (default: the last)")
        if kind == "confusion":
            sub.add_argument("--percent", action="store_true", help="shares instead of counts")
        if kind == "misclassified":
            sub.add_argument("--count", type=int, default=24, help="how many (default 24)")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from PIL import Image

    output = Path(options.output)
    if output.suffix.lower() != ".png":
        raise UserError(f"--output={options.output} must end in .png.")
    config, origin = source.source(options, overrides)
    picture, message = _DRAWERS[options.kind](options, config, origin)
    output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(output, optimize=True)
    print(f"{message} Wrote {output}")


@dataclass
class Network:
    """A network with its variables, for images of one shape.

    Attributes:
      shapes: what its modules put out, by path.
    """

    task: "Task"
    variables: Any
    shapes: dict[str, Any]

    @classmethod
    def of(cls, config: "ConfigDict", origin: "Origin", image_shape: Any) -> "Network":
        from jaxvision import tasks
        from jaxvision.inspect import features
        from jaxvision.train import compilation
        from jaxvision.train.inference import variables_of

        compilation.use_cache(config.compilation_cache)
        task = tasks.create(config, tuple(config.data.classes))
        shape = tuple(int(side) for side in image_shape)
        variables = variables_of(config, task, origin, shape)  # type: ignore[arg-type]
        return cls(task, variables, features.outputs(task.model, variables, shape))

    @property
    def model(self) -> "nn.Module":
        return self.task.model

    def normalized(self, images: Any) -> "jax.Array":
        """uint8 images, or one image, as the network takes them."""
        import jax.numpy as jnp

        batch = jnp.asarray(images)
        evaluate = self.task.inputs.evaluate  # type: ignore[attr-defined]
        return evaluate(batch) if batch.ndim == 4 else evaluate(batch[None])[0]

    def layer(self, path: str | None, first: bool = False) -> str:
        """The path, or the default layer's.

        Raises:
          UserError: there is no such layer.
        """
        from jaxvision.inspect import features

        if path is None:
            return features.default_layer(self.shapes, first)
        if path not in self.shapes:
            raise unknown("layer", path, [known for known in self.shapes if known])
        return path

    def chosen(self, text: str | None, layer: str, otherwise: int) -> list[int]:
        """Channels of a layer: those of the text, or the first ones.

        Raises:
          UserError: they are no numbers, or there are no such channels.
        """
        from jaxvision.inspect import features

        count = self.shapes[layer][-1]
        parts = text.split(",") if text else map(str, range(min(otherwise, count)))
        try:
            found = [int(part) for part in parts]
        except ValueError:
            raise UserError(f"--channels is numbers like 0,3,17; not {text!r}.") from None
        features.check_channels(found, count)
        return found


# -- pictures of images -----------------------------------------------------------------------


def _images(config: "ConfigDict", inputs: list[str]) -> "Iterator[tuple[str, np.ndarray]]":
    """Names of files, and their images as the network sees them, before normalisation."""
    import numpy as np

    from jaxvision.data import transforms
    from jaxvision.data.codecs import CorruptImageError, decode_image
    from jaxvision.train.inference import image_files

    transform = transforms.compose(config.data.eval_transforms)
    for file in image_files(inputs):
        try:
            image = decode_image(file.read_bytes(), config.data.channels, str(file))
        except CorruptImageError as error:
            raise UserError(f"{error.name} cannot be read: {error.reason}.") from error
        yield file.name, transform({"image": image}, np.random.default_rng(0))["image"]


def _label(text: str | None, names: Any) -> int | None:
    """The index of a class that is given by name or index.

    Raises:
      UserError: there is no such class.
    """
    if text is None:
        return None
    if text in names:
        return list(names).index(text)
    if text.isdigit() and int(text) < len(names):
        return int(text)
    raise unknown("class", text, names)


def _of_images(
    options: argparse.Namespace, config: "ConfigDict", origin: "Origin"
) -> "tuple[np.ndarray, str]":
    """A row for each image: itself, then its maps."""
    import numpy as np

    from jaxvision.inspect import draw
    from jaxvision.tasks import pictures

    tiles: list[np.ndarray] = []
    captions: list[str] = []
    network, draw_row, columns, count = None, None, 1, 0
    size: tuple[int, ...] = ()
    for name, image in _images(config, options.inputs):
        if network is None or draw_row is None:
            network = Network.of(config, origin, image.shape)
            draw_row = _ROWS[options.kind](options, config, network)
            size = image.shape[:2]
        row = [(pictures.as_colour(image), name), *draw_row(image)]
        columns, count = len(row), count + 1
        for tile, caption in row:
            smooth = tile.shape[0] > size[0]
            tiles.append(draw.resized(tile, size, smooth))
            captions.append(caption)
    wide = min(columns, 8)
    if count > 1:  # every image starts a line
        blank = np.full((*size, 3), 255, np.uint8)
        missing = -columns % wide
        for row_index in range(count, 0, -1):
            tiles[row_index * columns : row_index * columns] = [blank] * missing
            captions[row_index * columns : row_index * columns] = [""] * missing
    picture = pictures.captioned_grid(np.stack(tiles), captions, [False] * len(tiles), columns=wide)
    return picture, f"{options.kind} of {count} image{'s' if count > 1 else ''}."


def _activations(options: argparse.Namespace, config: Any, network: Network) -> Any:
    import jax
    import numpy as np

    from jaxvision.inspect import features

    layer = network.layer(options.layer, first=True)
    channels = network.chosen(options.channels, layer, 15)
    apply = jax.jit(
        lambda v, x: features.activations(network.model, v, network.normalized(x), layer)
    )

    def row(image: "np.ndarray") -> list[tuple[Any, str]]:
        tiles = features.channel_tiles(np.asarray(apply(network.variables, image)), channels)
        return [(tile, f"channel {channel}") for tile, channel in zip(tiles, channels)]

    return row


def _saliency(options: argparse.Namespace, config: Any, network: Network) -> Any:
    import jax

    from jaxvision.inspect import draw, features

    layer = "" if options.layer is None else network.layer(options.layer)
    rules = RULES if options.rule == "all" else (options.rule,)
    if options.rule not in (*RULES, "all"):
        raise unknown("rule", options.rule, (*RULES, "all"))
    if options.label and (layer or options.channels):
        raise UserError("--label is of the logits; with --layer give --channels.")
    names = config.data.classes
    label = _label(options.label, names)
    channels: list[int | None] = [label]
    if options.channels:
        channels = list(network.chosen(options.channels, layer, 1))

    @jax.jit
    def apply(variables: Any, image: Any) -> Any:
        image = network.normalized(image)
        value = features.tapped(network.model, variables, image[None], layer)[1]
        best = value.reshape(-1, value.shape[-1]).max(0).argmax()
        return best, [
            [
                features.saliency(network.model, variables, image, layer, channel, rule)
                for rule in rules
            ]
            for channel in (best if channel is None else channel for channel in channels)
        ]

    def row(image: "np.ndarray") -> list[tuple[Any, str]]:
        best, found = jax.device_get(apply(network.variables, image))
        tiles = []
        for channel, gradients in zip(channels, found):
            index = int(best) if channel is None else channel
            unit = f"channel {index}" if layer else names[index]
            for rule, gradient in zip(rules, gradients):
                tile = draw.gradient_picture(gradient, signed=rule != "gradient")
                tiles.append((tile, f"{unit}: {rule}"))
        return tiles

    return row


def _grad_cam(options: argparse.Namespace, config: Any, network: Network) -> Any:
    import jax
    import numpy as np

    from jaxvision.inspect import draw, features

    layer = network.layer(options.layer)
    label = _label(options.label, config.data.classes)

    @jax.jit
    def apply(variables: Any, image: Any) -> Any:
        image = network.normalized(image)
        logits = network.model.apply(variables, image[None], train=False)[0]
        index = logits.argmax() if label is None else label
        cam = features.grad_cam(network.model, variables, image, layer, index)
        return index, jax.nn.softmax(logits)[index], cam

    def row(image: "np.ndarray") -> list[tuple[Any, str]]:
        index, probability, cam = jax.device_get(apply(network.variables, image))
        caption = f"{config.data.classes[int(index)]} {probability:.0%}"
        return [(draw.heat(image, np.asarray(cam)), caption)]

    return row


def _attention(options: argparse.Namespace, config: Any, network: Network) -> Any:
    import jax
    import numpy as np

    from jaxvision.inspect import attention, draw

    maps_of = jax.jit(
        lambda v, x: attention.attention_maps(network.model, v, network.normalized(x))
    )

    def row(image: "np.ndarray") -> list[tuple[Any, str]]:
        maps = maps_of(network.variables, image)
        if options.kind == "rollout":
            weights = attention.attention_rollout(maps)[None]
            names = ["rollout"]
        else:
            if not -len(maps) <= options.block < len(maps):
                raise UserError(f"--block={options.block}: the blocks are 0 to {len(maps) - 1}.")
            weights = maps[options.block]
            number = options.block % len(maps)
            names = [f"block {number}, head {head}" for head in range(len(weights))]
        found = np.asarray(attention.over_patches(weights, network.model, image.shape))
        return [(draw.heat(image, draw.stretched(m)), name) for m, name in zip(found, names)]

    return row


_ROWS: dict[str, Any] = {
    "activations": _activations,
    "saliency": _saliency,
    "grad-cam": _grad_cam,
    "attention": _attention,
    "rollout": _attention,
}


# -- pictures of weights and of data sets ------------------------------------------------------


def _filters(
    options: argparse.Namespace, config: "ConfigDict", origin: "Origin"
) -> "tuple[np.ndarray, str]":
    import numpy as np

    from jaxvision import models, pretrained
    from jaxvision.inspect import draw, features
    from jaxvision.interop.torch_weights import torch_name
    from jaxvision.train.inference import run_variables

    name = config.model.name
    if origin.workdir is not None:
        variables = run_variables(origin)
    else:
        more = {"channels": config.data.channels, **config.model.options.to_dict()}
        _, variables = pretrained.create(name, origin.weights, **more)
    layer = options.layer
    if layer is None:
        wanted = f"{models.variant(name).first}.weight"
        paths = features.convolutions(variables)
        layer = next(
            (path for path in paths if torch_name(f"params/{path}/kernel") == wanted), None
        )
    if layer is None:
        raise UserError(f"{name} does not begin with a convolution; give --layer.")
    tiles = features.filters(variables, layer)
    scale = max(1, 48 // max(tiles.shape[1:3]))
    picture = draw.grid(np.repeat(np.repeat(tiles, scale, 1), scale, 2), gap=4)
    return picture, f"{len(tiles)} filters of {layer}."


def _stream(options: argparse.Namespace, config: "ConfigDict") -> "tuple[ConfigDict, Stream]":
    """The configuration with the names of the classes, and the split in order."""
    from jaxvision import tasks
    from jaxvision.data.loader import open_stream

    split = options.split or config.data.test or config.data.validation
    if not split:
        raise UserError("The configuration names no test split; give --split.")
    stream = open_stream(
        config.data,
        split,
        seed=config.seed,
        train=False,
        annotations=tasks.annotations(config.task),
    )
    config = config.copy_and_resolve_references()
    config.data.classes = tuple(config.data.classes) or stream.source.class_names
    return config, stream


def _batches(config: "ConfigDict", stream: "Stream") -> Iterator[Any]:
    from jaxvision.data.loader import Share, host_batches

    yield from host_batches(
        stream, Share(_BATCH), 0, -(-stream.order.count // _BATCH),
        threads=config.data.threads, workers=config.data.workers,
    )  # fmt: skip


def _patches(
    options: argparse.Namespace, config: "ConfigDict", origin: "Origin"
) -> "tuple[np.ndarray, str]":
    import numpy as np

    from jaxvision.inspect import draw, patches
    from jaxvision.tasks import pictures

    config, stream = _stream(options, config)
    shape = stream[0]["image"].shape
    network = Network.of(config, origin, shape)
    layer = network.layer(options.layer)
    channels = network.chosen(options.channels, layer, 16)
    batches = (
        (network.normalized(batch["image"]), np.where(batch["valid"], batch["image_id"], -1))
        for batch in _batches(config, stream)
    )
    best = patches.top_patches(network.model, network.variables, batches, layer, channels)
    fields = patches.influence(network.model, network.variables, shape, layer)
    mosaics = []
    for row in range(len(channels)):
        cuts = [
            pictures.as_colour(patches.cut(stream[int(index)]["image"], place, fields))
            for index, place in zip(best.images[row], best.places[row])
            if index >= 0
        ]
        blank = [np.full_like(cuts[0], 255)] * (9 - len(cuts))
        mosaics.append(draw.grid(np.stack([*cuts, *blank]), columns=3))
    captions = [f"channel {channel}" for channel in channels]
    picture = pictures.captioned_grid(np.stack(mosaics), captions, [False] * len(channels))
    size = "x".join(str(int((field[:, 1] - field[:, 0]).max())) for field in fields)
    return picture, f"Patches of {size} pixels for {len(channels)} channels of {layer}."


def _judged(config: "ConfigDict", origin: "Origin", stream: "Stream") -> Any:
    """(indices, classes, probabilities) of the readable records of a split.

    Raises:
      UserError: the network is no classifier.
    """
    import jax
    import numpy as np

    if config.task != "classification":
        raise UserError(f"This is a run of {config.task}; the picture is of classifiers.")
    network = Network.of(config, origin, stream[0]["image"].shape)
    predict = jax.jit(network.task.predict)
    parts = []
    for batch in _batches(config, stream):
        if "label" not in batch:
            raise UserError("The data have no labels; is this a data set for classification?")
        found = predict(network.variables, batch["image"])["probabilities"]
        kept = batch["valid"]
        parts.append((batch["image_id"][kept], batch["label"][kept], np.asarray(found)[kept]))
    return tuple(np.concatenate(column) for column in zip(*parts))


def _confusion(
    options: argparse.Namespace, config: "ConfigDict", origin: "Origin"
) -> "tuple[np.ndarray, str]":
    import jax.numpy as jnp
    import numpy as np

    from jaxvision.inspect import draw
    from jaxvision.metrics import ConfusionMatrix
    from jaxvision.train.inference import evaluate_split

    if config.task == "classification":
        config, stream = _stream(options, config)
        _, labels, probabilities = _judged(config, origin, stream)
        guesses, names = probabilities.argmax(-1), tuple(config.data.classes)
        matrix = ConfusionMatrix.of(jnp.asarray(guesses), jnp.asarray(labels), len(names), names)
    else:
        split = options.split or config.data.test or config.data.validation
        _, found = evaluate_split(config, origin, split)
        matrices = [value for value in found.values() if isinstance(value, ConfusionMatrix)]
        if not matrices:
            raise UserError(f"There is no confusion matrix of {config.task}.")
        matrix = matrices[0]
    counts = np.asarray(matrix.counts, np.int64)
    share = np.trace(counts) / max(1, counts.sum())
    picture = draw.confusion_matrix(matrix, options.percent)
    return picture, f"{np.trace(counts)} of {counts.sum()} correct ({share:.2%})."


def _misclassified(
    options: argparse.Namespace, config: "ConfigDict", origin: "Origin"
) -> "tuple[np.ndarray, str]":
    import numpy as np

    from jaxvision.tasks import pictures

    if options.count < 1:
        raise UserError(f"--count={options.count} must be at least 1.")
    config, stream = _stream(options, config)
    indices, labels, probabilities = _judged(config, origin, stream)
    names = config.data.classes
    order = most_confident_mistakes(probabilities, labels)
    shown = order[: options.count]
    if not len(shown):
        raise UserError("No image of the split is misclassified.")
    guesses = probabilities.argmax(-1)
    captions = [
        f"{names[guesses[row]]} {probabilities[row, guesses[row]]:.0%} (is {names[labels[row]]})"
        for row in shown
    ]
    images = np.stack([stream[int(indices[row])]["image"] for row in shown])
    picture = pictures.captioned_grid(images, captions, [True] * len(shown), columns=6)
    return picture, f"{len(order)} of {len(labels)} images are misclassified."


def most_confident_mistakes(probabilities: "np.ndarray", labels: "np.ndarray") -> "np.ndarray":
    """Indices of the misclassified of [n, k] probabilities, most confident first."""
    import numpy as np

    wrong = np.flatnonzero(probabilities.argmax(-1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(-1), kind="stable")]


_DRAWERS: dict[str, Any] = {
    "filters": _filters,
    "patches": _patches,
    "confusion": _confusion,
    "misclassified": _misclassified,
    **dict.fromkeys(_OF_IMAGES, _of_images),
}
