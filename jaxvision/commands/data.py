"""Prepare data sets, or read them: what is wrong with them, which anchors suit their boxes."""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvision.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from ml_collections import ConfigDict

    from jaxvision.data.annotations import Kind
    from jaxvision.data.check import Report

_SHOWN = 5  # faults of a kind that are printed
_PICTURES, _SIDE = 12, 320  # annotated images, and pixels of their sides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    prepare = actions.add_parser(
        "prepare", help="prepare a TFDS data set as ArrayRecord", allow_abbrev=False
    )
    prepare.add_argument("name", help="digits, shapes or a name of the TFDS catalogue")
    prepare.add_argument("--data-dir", default="", help="where to (default: the TFDS default)")
    check = actions.add_parser(
        "check",
        help="read the data of a configuration; exit 1 if any are wrong",
        allow_abbrev=False,
    )
    check.add_argument("--config", required=True, metavar="FILE[:VARIANT]", help="config file")
    check.add_argument("--split", help="one split (default: all of the configuration)")
    check.add_argument(
        "--output", metavar="FOLDER", help="gets a picture of annotated images, and all faults"
    )
    anchors = actions.add_parser(
        "anchors",
        help="shapes of anchors for the boxes of a configuration, as YOLO v2 and v3 choose them",
        allow_abbrev=False,
    )
    anchors.add_argument("--config", required=True, metavar="FILE[:VARIANT]", help="config file")
    anchors.add_argument("--split", help="of the boxes (default: the one to train on)")
    anchors.add_argument("--count", type=int, default=9, help="how many (default: 9)")
    anchors.add_argument("--seed", type=int, default=0, help="of the k-means (default: 0)")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    actions = {"prepare": _prepare, "check": _check, "anchors": _anchors}
    actions[options.action](options, overrides)


def _prepare(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision.data.prepare import prepare

    builder = prepare(options.name, options.data_dir)
    splits = ", ".join(f"{n} {s.num_examples}" for n, s in builder.info.splits.items())
    print(f"{builder.info.full_name} is ready in {builder.data_path}: {splits}")
    print(f"Use it with --config.data.name={options.name}")


def _check(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Raises:
    SystemExit: something is wrong with the data; of code 1.
    """
    from jaxvision import tasks
    from jaxvision.data import annotations, check
    from jaxvision.tasks import configuration

    config = configuration.load(options.config, overrides)
    data = config.data
    splits = [options.split] if options.split else [data.train, data.validation, data.test]
    kinds = annotations.named(tasks.annotations(config.task))
    wrong = 0
    for report in check.check(data, list(dict.fromkeys(filter(None, splits))), kinds):
        print("\n".join(lines(report)), flush=True)
        wrong += sum(map(len, report.faults.values()))
        if options.output:
            _write(report, Path(options.output), data, kinds)
    print(f"{wrong} faults." if wrong else "Nothing is wrong.")
    if wrong:
        raise SystemExit(1)


def lines(report: "Report") -> list[str]:
    """What was found in a split, to be read."""
    found = [f"{report.spec}: {sum(report.sizes.values()):,} images"]
    sizes = [("x".join(map(str, size[::-1])), n) for size, n in report.sizes.most_common()]
    if sizes:
        more = f", and {len(sizes) - 5} other sizes" if len(sizes) > 5 else ""
        found.append("  sizes: " + ", ".join(f"{size} ({n:,})" for size, n in sizes[:5]) + more)
    if report.classes and report.source is not None:
        names = report.source.class_names
        counts = ", ".join(f"{name} {report.classes[name]:,}" for name in names)
        found.append(f"  of each class: {counts}")
        few, many = min(report.per_image), max(report.per_image)
        empty = f", {report.per_image[0]:,} images with none" if few == 0 else ""
        if (few, many) != (1, 1):
            found.append(f"  in an image: {few} to {many}{empty}")
    if report.captions:
        few, many = min(report.captions), max(report.captions)
        each = f"{few}" if few == many else f"{few} to {many}"
        count = sum(number * images for number, images in report.captions.items())
        found.append(
            f"  captions: {count:,}, {each} an image; {report.words.total():,} words, "
            f"{len(report.words):,} of them different"
        )
        if report.cut:
            limit = f"data.max_tokens={report.max_tokens}"
            found.append(f"  captions of more tokens than {limit}, which are cut: {report.cut:,}")
    for kind, texts in report.faults.items():
        found.append(f"  {kind}: {len(texts):,}")
        found += [f"    {text}" for text in texts[:_SHOWN]]
        if len(texts) > _SHOWN:
            found.append("    ...")
    return found


def _write(report: "Report", folder: Path, data: "ConfigDict", kinds: "tuple[Kind, ...]") -> None:
    """Writes a picture of annotated images, and all faults as JSON.

    Raises:
      UserError: the folder is a file.
    """
    from PIL import Image

    from jaxvision.train.writers import write_atomically

    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output names a folder; {folder} is a file.")
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.-]+", "_", report.spec).strip("_")
    write_atomically(folder / f"{stem}.json", json.dumps(report.faults, indent=2) + "\n")
    picture = annotated(report, data, kinds)
    if picture is not None:
        Image.fromarray(picture).save(folder / f"{stem}.png")
        print(f"  Wrote {folder / stem}.png and .json")


def annotated(
    report: "Report", data: "ConfigDict", kinds: "tuple[Kind, ...]"
) -> "np.ndarray | None":
    """Some images of a split with what is annotated of them; None if none is readable."""
    import numpy as np

    from jaxvision.data import transforms
    from jaxvision.data.annotations import KINDS
    from jaxvision.data.check import readable
    from jaxvision.tasks import pictures

    if report.source is None:
        return None
    names = report.source.class_names
    fit = transforms.compose([{"name": "letterbox", "size": _SIDE, "fill": 255}], kinds)
    shown = [(name, kind) for name, kind in KINDS.items() if name in _DRAWN and kind in kinds]
    tiles, captions = [], []
    for title, record in readable(report.source, data, kinds, _PICTURES):
        if record["image"].ndim != 3:
            return None  # volumes are not drawn
        record = fit(record, np.random.default_rng(0))
        tile, caption = pictures.as_colour(record["image"]), Path(title).name
        for name, kind in shown:
            if kind.present(record):
                tile, text = _DRAWN[name](tile, record, names)
                caption += text
        tiles.append(tile)
        captions.append(caption)
    if not tiles:
        return None
    return pictures.captioned_grid(np.stack(tiles), captions, [False] * len(tiles))


def _anchors(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision.classical.kmeans import kmeans_of_shapes
    from jaxvision.tasks import configuration

    data = configuration.load(options.config, overrides).data
    spec = options.split or data.train
    shapes, sides = shapes_of(data, spec)
    print(f"{spec}: {len(shapes):,} boxes, in pixels of the images that the network sees")
    for unit, digits, values in (("pixels", 1, shapes), ("shares of the image", 4, shapes / sides)):
        found, overlap = kmeans_of_shapes(values, options.count, seed=options.seed)
        rows = ", ".join(f"({w:.{digits}f}, {h:.{digits}f})" for w, h in found)
        print(f"  anchors in {unit}: ({rows})")
        print(f"  mean IoU of a box with the best of them: {overlap:.3f}")


def shapes_of(data: "ConfigDict", spec: str) -> "tuple[np.ndarray, np.ndarray]":
    """(width, height) [n, 2] of the boxes of a split, after `data.eval_transforms`, and of the
    image of each.

    Raises:
      UserError: there are none, or the data are wrong.
    """
    import numpy as np

    from jaxvision.data.stream import open_stream
    from jaxvision.progress import tracked

    unused = ("instances", "instance_masks", "keypoints")
    stream = open_stream(data, spec, seed=0, train=False, annotations=("instances",), unused=unused)
    count = stream.order.count
    shapes, sides = [np.zeros((0, 2), np.float32)], [np.zeros((0, 2), np.float32)]
    for record in tracked((stream[index] for index in range(count)), f"Reading {spec}", count):
        if "boxes" not in record:
            raise UserError(f"The records of {spec!r} have no boxes.")
        boxes = record["boxes"][record["box_valid"] & ~record["box_crowd"]]
        found = boxes[:, 2:] - boxes[:, :2]
        found = found[(found > 0).all(1)]
        shapes.append(found)
        sides.append(np.full_like(found, record["image"].shape[1::-1]))
    if not sum(map(len, shapes)):
        raise UserError(f"There is no box in {spec!r}.")
    return np.concatenate(shapes), np.concatenate(sides)


# -- what is drawn of each kind of annotation: (image, record, class names) -> (image, caption) ---


def _draw_objects(image: Any, record: Mapping[str, Any], names: Any) -> tuple[Any, str]:
    import numpy as np

    from jaxvision.data.masks import Crops
    from jaxvision.tasks import pictures, skeletons

    colours = [tuple(map(int, colour)) for colour in pictures.palette(len(names) + 1)[1:]]
    masks = record.get("instance_masks")
    if masks is None and "instances" in record:
        numbers = np.arange(1, len(record["boxes"]) + 1)
        masks = Crops.of_stack(record["instances"] == numbers[:, None, None])
    if masks is not None:
        own = [colours[k] for k in record["box_label"]]
        image = pictures.masked(image, masks.crops, masks.corners.tolist(), own)
    for points in record.get("keypoints", ()):
        places, shown = points[:, :2].astype(np.float32), points[:, 2] > 0
        image = skeletons.drawn(image, places, shown, (), (), least=0)
    boxes = [(box, colours[k]) for box, k in zip(record["boxes"], record["box_label"])]
    present, counts = np.unique(record["box_label"], return_counts=True)
    text = ", ".join(f"{names[k]} {count}" for k, count in zip(present, counts))
    return pictures.boxed(image, boxes), f": {text or 'no object'}"


def _draw_mask(image: Any, record: Mapping[str, Any], names: Any) -> tuple[Any, str]:
    from jaxvision.tasks import pictures

    clear = pictures.background_of(names)
    return pictures.overlay(image, record["segmentation"], len(names), clear=clear), ""


def _draw_label(image: Any, record: Mapping[str, Any], names: Any) -> tuple[Any, str]:
    return image, f": {names[record['label']]}"


def _draw_captions(image: Any, record: Mapping[str, Any], names: Any) -> tuple[Any, str]:
    return image, f": {' / '.join(record['captions'])}"


_DRAWN = {
    "instances": _draw_objects,
    "segmentation": _draw_mask,
    "label": _draw_label,
    "caption": _draw_captions,
}
