"""What semantic segmentation shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxvision.data.label_maps import ignored, label_type
from jaxvision.layers.images import center_crop
from jaxvision.report import Part, Section, Table
from jaxvision.tasks import confusions, pictures
from jaxvision.tasks.evaluated import Evaluated, Mistake
from jaxvision.tasks.shown import Entry, Overlay, Pictures, Shown, label_colours


def picture(task: Any, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
    """Rows of image, truth (if known) and prediction, with a legend of the classes.

    Of volumes the slice in the middle is shown.

    Args:
      task: a `Segmentation`.
      batch: host arrays, `segmentation` if it is known.
      outputs: of `task.predict`.

    Returns:
      uint8 [h, w, 3].
    """
    found, image = np.asarray(outputs["segmentation"]), np.asarray(batch["image"])
    truth = None
    if "segmentation" in batch:
        truth = np.asarray(center_crop(np.asarray(batch["segmentation"]), found.shape[1:]))
    if image.ndim == 5:
        middle = found.shape[1] // 2
        image = center_crop(image[..., 0], found.shape[1:])[:, middle, ..., None]
        found, truth = found[:, middle], None if truth is None else truth[:, middle]
    columns, count = [pictures.as_colour(image)], len(task.class_names)
    if truth is not None:
        columns.append(pictures.colour_map(truth, count))
    columns.append(pictures.colour_map(found, count))
    return pictures.rows(columns, task.class_names)


def lines(task: Any, sums: Mapping[str, Any]) -> list[str]:
    """What is said of an evaluation beside its metrics."""
    return []


def labels_of(task: Any, prediction: Any) -> np.ndarray:
    """Class indices [h, w] of the photograph's own pixels, in the type that masks have.

    Where the network did not look they are 255, of more than 255 classes 65535.

    Volumes [d, h, w] are as the network gave them.
    """
    kept = label_type(len(task.class_names))
    labels = np.asarray(prediction.outputs["segmentation"])
    if labels.ndim == 3:
        return labels
    return prediction.geometry.restore_labels(labels.astype(kept), fill=ignored(kept))


def summary(task: Any, prediction: Any, top: int = 5) -> dict[str, Any]:
    """JSON-able: the share of the photograph's pixels of each class found."""
    labels, counts = np.unique(labels_of(task, prediction), return_counts=True)
    within = labels < len(task.class_names)
    labels, counts = labels[within], counts[within]
    share = counts / max(1, counts.sum())
    return {
        "classes": [
            {"name": task.class_names[labels[i]], "share": round(float(share[i]), 6)}
            for i in np.argsort(-share, kind="stable")
        ]
    }


def cell(task: Any, prediction: Any, top: int = 5) -> str:
    """One line for the table of `predict`."""
    classes = summary(task, prediction)["classes"][:top]
    return "  ".join(f"{one['name']} {one['share']:.1%}" for one in classes)


# The ends of the names of what `write` writes for each image.
ENDINGS = (".png", "-classes.png", "-classes.npy")


def write(task: Any, prediction: Any, folder: Path, stem: str) -> None:
    """The photograph under its label map and over a legend, and the map as a PNG of indices.

    The PNG has a palette, or 16 bits where there are more classes than 255.

    The map of a volume is a NumPy file; its picture is of the slice in the middle.
    """
    labels, image = labels_of(task, prediction), prediction.image
    if labels.ndim == 3:
        np.save(folder / f"{stem}-classes.npy", labels)
        middle = len(labels) // 2
        labels, image = labels[middle], image[middle]
    else:
        if labels.dtype == np.uint8:
            indices = Image.fromarray(labels)
            indices.putpalette(pictures.palette(256).tobytes())
        else:
            indices = Image.fromarray(labels.astype(np.uint16))
        indices.save(folder / f"{stem}-classes.png")
    names = task.class_names
    present = [int(k) for k in np.unique(labels) if k < len(names)]
    laid_over = pictures.overlay(image, labels, len(names), clear=pictures.background_of(names))
    Image.fromarray(pictures.with_legend(laid_over, names, present)).save(folder / f"{stem}.png")


def shown(task: Any, prediction: Any) -> list[Shown]:
    """The label map over the photograph, of volumes the slice in the middle under it; see
    `jaxvision.tasks.shown`."""
    labels, names = labels_of(task, prediction), task.class_names
    colours, clear = pictures.palette(len(names)), pictures.background_of(names)
    legend = [
        Entry(one["name"], tuple(colours[names.index(one["name"])].tolist()), f"{one['share']:.1%}")
        for one in summary(task, prediction)["classes"]
    ]
    if labels.ndim == 2:
        return [Overlay("Classes", label_colours(labels, colours, clear), legend)]
    middle = len(labels) // 2
    image = center_crop(prediction.image[None, ..., 0], labels.shape)[0, middle, ..., None]
    over = pictures.overlay(image, labels[middle], len(names), clear=clear)
    present = [int(k) for k in np.unique(labels[middle]) if k < len(names)]
    over = pictures.with_legend(over, names, present)
    return [Pictures([(image, f"slice {middle}"), (over, "classes")])]


def annotated(task: Any, row: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """(an augmented training image under its mask, the classes in it)."""
    names, labels = task.class_names, row["segmentation"]
    present = [names[k] for k in np.unique(labels) if k < len(names)]
    clear = pictures.background_of(names)
    return pictures.overlay(row["image"], labels, len(names), clear=clear), ", ".join(present)


def sections(task: Any, found: Evaluated) -> list[Section]:
    """A table of the classes, and which is taken for which, in pixels."""
    confusion = found.sums["confusion"]
    counts, names = np.asarray(confusion.counts), confusion.class_names
    hits, there, guessed = np.diag(counts), counts.sum(1), counts.sum(0)
    boundary = _boundary(found, len(names))
    lines = []
    for k, (name, iou) in enumerate(zip(names, confusion.iou())):
        recall = hits[k] / there[k] if there[k] else None
        precision = hits[k] / guessed[k] if guessed[k] else None
        share = there[k] / max(1, there.sum())
        line = [name, int(there[k]), share, float(iou), recall, precision]
        lines.append([*line, boundary[k]] if boundary else line)
    lines.sort(key=lambda line: (np.isnan(line[3]), line[3]))
    columns = ["class", "pixels", "share of the pixels", "IoU", "recall", "precision"]
    columns += ["boundary F1"] * bool(boundary)
    parts: list[Part] = [
        Table(columns, lines, "Each class, the worst first"),
        confusions.matrix(counts, names),
        *confusions.pairs(counts, names, "pixels"),
    ]
    return [Section("Classes", parts)]


def _boundary(found: Evaluated, count: int) -> list[float]:
    """The boundary F1 of each class; [] where it was not measured."""
    if "boundary_f1" not in found.sums:
        return []
    score = found.sums["boundary_f1"]
    seen = np.asarray(score.count)
    each = np.where(seen > 0, np.asarray(score.total) / np.maximum(seen, 1), np.nan)
    return [float(value) for value in each[:count]]


def mistakes(task: Any, found: Evaluated, most: int) -> list[Mistake]:
    """The images of which the smallest share of the pixels is right; tags are classes in them."""
    right = np.where(found.rows["known"], found.rows["right"], np.inf)
    order = [int(row) for row in np.argsort(right, kind="stable")[:most] if np.isfinite(right[row])]
    if not order:
        return []
    masks, names = np.asarray(found.read(order)["segmentation"]), task.class_names
    return [
        Mistake(
            row,
            f"{found.name(row)}: {right[row]:.1%} of the pixels right",
            tuple(names[k] for k in np.unique(mask) if k < len(names)),
            wrong=bool(right[row] < 1),
        )
        for row, mask in zip(order, masks)
    ]
