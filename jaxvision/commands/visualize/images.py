"""Pictures of what a network does with images: a row for each image, itself and then its maps."""

import argparse
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw

from jaxvision import tasks
from jaxvision.data.codecs import CorruptImageError
from jaxvision.errors import UserError, unknown
from jaxvision.inspect import attention as attention_of
from jaxvision.inspect import draw, features
from jaxvision.runs import Run, image_files
from jaxvision.runs.network import Network
from jaxvision.runs.predicting import read_image
from jaxvision.tasks import pictures

_COLUMNS = 8  # of the picture, at most

Tile = tuple[np.ndarray, str]  # uint8 [h, w, 3] and its caption
Row = Callable[[np.ndarray], list[Tile]]  # the maps of an image, as the network takes it


def _in_rows(
    prepare: Callable[[argparse.Namespace, Network], Row],
) -> Callable[[argparse.Namespace, Run], tuple[np.ndarray, str]]:
    """A drawing of images, of what makes the maps of one image."""

    @wraps(prepare)
    def drawing(options: argparse.Namespace, run: Run) -> tuple[np.ndarray, str]:
        rows: list[list[Tile]] = []
        maps: Row | None = None
        size: tuple[int, ...] = ()
        for name, image in _images(run, options.inputs):
            if maps is None:
                maps, size = prepare(options, Network.of(run, image.shape)), image.shape[:2]
            row = [(pictures.as_colour(image), name), *maps(image)]
            rows.append(
                [(draw.resized(tile, size, tile.shape[0] > size[0]), text) for tile, text in row]
            )
        count = len(rows)
        return _lined_up(rows), f"{options.kind} of {count} image{'s' if count > 1 else ''}."

    return drawing


def _images(run: Run, inputs: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Names of files, and their images as the network sees them, before normalisation.

    Raises:
      UserError: there is no such file, or it cannot be read.
    """
    for file in image_files(inputs):
        try:
            image = read_image(run, file)
        except CorruptImageError as error:
            raise UserError(f"{error.name} cannot be read: {error.reason}.") from error
        yield file.name, run.prepare({"image": image}, np.random.default_rng(0))["image"]


def _lined_up(rows: list[list[Tile]]) -> np.ndarray:
    """One picture of all rows; each begins a line."""
    columns = min(len(rows[0]), _COLUMNS)
    blank = np.full_like(rows[0][0][0], 255)
    missing = -len(rows[0]) % columns if len(rows) > 1 else 0
    tiles = [tile for row in rows for tile in [*row, *[(blank, "")] * missing]]
    return pictures.captioned_grid(
        np.stack([picture for picture, _ in tiles]),
        [caption for _, caption in tiles],
        [False] * len(tiles),
        columns=columns,
    )


@_in_rows
def activations(options: argparse.Namespace, network: Network) -> Row:
    """Channels of the map that a layer puts out."""
    layer = network.layer(options.layer, first=True)
    channels = network.channels(options.channels, layer, 15)
    apply = jax.jit(
        lambda v, x: features.activations(network.model, v, network.normalized(x), layer)
    )

    def row(image: np.ndarray) -> list[Tile]:
        tiles = features.channel_tiles(np.asarray(apply(network.variables, image)), channels)
        return [(tile, f"channel {channel}") for tile, channel in zip(tiles, channels)]

    return row


@_in_rows
def saliency(options: argparse.Namespace, network: Network) -> Row:
    """Gradients of a class, or of channels of a layer, by one rule or all."""
    layer = "" if options.layer is None else network.layer(options.layer)
    rules = features.RULES if options.rule == "all" else (options.rule,)
    if options.rule not in (*features.RULES, "all"):
        raise unknown("rule", options.rule, (*features.RULES, "all"))
    if options.label and (layer or options.channels):
        raise UserError("--label is of the logits; with --layer give --channels.")
    if layer not in network.shapes:
        raise UserError("The network puts out no logits; give --layer and --channels.")
    channels: list[int | None] = [network.label(options.label)]
    if options.channels:
        channels = list(network.channels(options.channels, layer, 1))

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

    def row(image: np.ndarray) -> list[Tile]:
        best, found = jax.device_get(apply(network.variables, image))
        tiles = []
        for channel, gradients in zip(channels, found):
            index = int(best) if channel is None else channel
            unit = f"channel {index}" if layer else network.output_name(index)
            for rule, gradient in zip(rules, gradients):
                tile = draw.gradient_picture(gradient, signed=rule != "gradient")
                tiles.append((tile, f"{unit}: {rule}"))
        return tiles

    return row


@_in_rows
def grad_cam(options: argparse.Namespace, network: Network) -> Row:
    """Where a map speaks for a class, and the class's probability."""
    layer = network.layer(options.layer)
    label = network.label(options.label)
    if len(network.shapes.get("", ())) != 1:
        raise UserError("Grad-CAM is of classifiers.")

    @jax.jit
    def apply(variables: Any, image: Any) -> Any:
        image = network.normalized(image)
        logits = network.model.apply(variables, image[None], train=False)[0]
        index = logits.argmax() if label is None else label
        cam = features.grad_cam(network.model, variables, image, layer, index)
        return index, jax.nn.softmax(logits)[index], cam

    def row(image: np.ndarray) -> list[Tile]:
        index, probability, cam = jax.device_get(apply(network.variables, image))
        caption = f"{network.output_name(int(index))} {probability:.0%}"
        return [(draw.heat(image, np.asarray(cam)), caption)]

    return row


@_in_rows
def attention(options: argparse.Namespace, network: Network) -> Row:
    """What the class token attends to in one block, by head."""
    maps_of = _attention_maps(network)

    def row(image: np.ndarray) -> list[Tile]:
        maps = maps_of(network.variables, image)
        if not -len(maps) <= options.block < len(maps):
            raise UserError(f"--block={options.block}: the blocks are 0 to {len(maps) - 1}.")
        weights, number = maps[options.block], options.block % len(maps)
        names = [f"block {number}, head {head}" for head in range(len(weights))]
        return _heats(network, image, weights, names)

    return row


@_in_rows
def rollout(options: argparse.Namespace, network: Network) -> Row:
    """What the class token draws on through all blocks."""
    maps_of = _attention_maps(network)

    def row(image: np.ndarray) -> list[Tile]:
        weights = attention_of.attention_rollout(maps_of(network.variables, image))
        return _heats(network, image, weights[None], ["rollout"])

    return row


@_in_rows
def objects(options: argparse.Namespace, network: Network) -> Row:
    """Where the queries of the best objects look, and where points do."""
    task = network.run.task
    attend = tasks.require(task, "object_attention", "A picture of objects' attention")
    if options.count < 1:
        raise UserError(f"--count={options.count} is at least 1.")
    apply = jax.jit(lambda v, x: attend(v, x[None], options.count))

    def row(image: np.ndarray) -> list[Tile]:
        points = _points(options.points, image.shape)
        found = {k: v[0] for k, v in jax.device_get(apply(network.of_task, image)).items()}
        tiles = []
        for box, score, label, valid, weights in zip(
            *(found[key] for key in ("boxes", "scores", "labels", "valid", "attention"))
        ):
            text = f"{task.class_names[label]} {score:.2f}" if valid else "no object"
            picture = draw.heat(image, draw.stretched(weights))
            x0, y0, x1, y1 = (round(float(side)) for side in box)
            tiles.append((_framed(picture, x0, y0, x1, y1) if valid else picture, text))
        rows, columns = found["places"].shape[:2]
        for x, y in points:
            weights = found["places"][y * rows // image.shape[0], x * columns // image.shape[1]]
            tiles.append((draw.heat(image, draw.stretched(weights)), f"point {x},{y}"))
        return tiles

    return row


@_in_rows
def stages(options: argparse.Namespace, network: Network) -> Row:
    """What a detector sees on its way: its maps, the best proposals, the best objects."""
    task = network.run.task
    see = tasks.require(task, "stages", "A picture of stages")
    for name, value in (("count", options.count), ("proposals", options.proposals)):
        if value < 1:
            raise UserError(f"--{name}={value} is at least 1.")
    apply = jax.jit(lambda v, x: see(v, x[None]))

    def row(image: np.ndarray) -> list[Tile]:
        found = {k: v[0] for k, v in jax.device_get(apply(network.of_task, image)).items()}
        tiles = [
            (draw.heat(image, value), name.removeprefix("heat/"))
            for name, value in found.items()
            if name.startswith("heat/")
        ]
        if "proposals" in found:
            best = found["proposals"][found["proposal_valid"]][: options.proposals]
            picture = pictures.as_colour(image)
            for box in best[::-1]:
                picture = _framed(picture, *(round(float(side)) for side in box))
            tiles.append((picture, f"{len(best)} proposals"))
        grids = found.get("masks", found.get("keypoint_heat"))
        for number in range(min(options.count, len(found["boxes"]))):
            if not found["valid"][number]:
                tiles.append((pictures.as_colour(image), "no object"))
                continue
            box = [round(float(side)) for side in found["boxes"][number]]
            picture = pictures.as_colour(image)
            if grids is not None:
                picture = draw.heat(image, _in_box(grids[number], box, image.shape[:2]))
            text = f"{task.class_names[found['labels'][number]]} {found['scores'][number]:.2f}"
            tiles.append((_framed(picture, *box), text))
        return tiles

    return row


def _in_box(grid: np.ndarray, box: list[int], size: tuple[int, ...]) -> np.ndarray:
    """Values of the cells of a box on an image of (height, width); 0 outside."""
    canvas = Image.new("F", (size[1], size[0]))
    x0, y0, x1, y1 = box
    cells = Image.fromarray(np.asarray(grid, np.float32))
    resample = Image.Resampling.BILINEAR
    canvas.paste(cells.resize((max(1, x1 - x0), max(1, y1 - y0)), resample), (x0, y0))
    return np.asarray(canvas)


def _framed(picture: np.ndarray, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    drawn = Image.fromarray(picture)
    ImageDraw.Draw(drawn).rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline="white")
    return np.asarray(drawn)


def _points(text: str, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """`X,Y,X,Y` as pairs.

    Raises:
      UserError: they are none, or outside an image of this shape.
    """
    parts = text.split(",") if text else []
    if len(parts) % 2 or not all(part.isdigit() for part in parts):
        raise UserError(f"--points is X,Y or X,Y,X,Y and so on, in pixels; not {text!r}.")
    found = [(int(x), int(y)) for x, y in zip(parts[::2], parts[1::2])]
    for x, y in found:
        if x >= shape[1] or y >= shape[0]:
            raise UserError(
                f"--points: {x},{y} is outside the network's image, {shape[1]} pixels wide and "
                f"{shape[0]} high."
            )
    return found


def _attention_maps(network: Network) -> Callable[[Any, Any], list[jax.Array]]:
    """A function of variables and one image to the attention [heads, n, n] of each block."""
    return jax.jit(
        lambda v, x: attention_of.attention_maps(network.model, v, network.normalized(x))
    )


def _heats(network: Network, image: np.ndarray, weights: jax.Array, names: list[str]) -> list[Tile]:
    """Attention [heads, n, n] of the class token, laid over the image."""
    found = np.asarray(attention_of.over_patches(weights, network.model, image.shape))
    return [(draw.heat(image, draw.stretched(m)), name) for m, name in zip(found, names)]
