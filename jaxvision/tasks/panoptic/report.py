"""What panoptic segmentation shows: segments in colours, things brighter than stuff."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from jaxvision.tasks import pictures
from jaxvision.tasks.detection.report import categories, figures, image_id, mistakes, sections
from jaxvision.tasks.instances import report as instances
from jaxvision.tasks.shown import Entry, Overlay, Shown, label_colours

__all__ = ["figures", "mistakes", "sections"]

# The ends of the names of what `write` writes for each image.
ENDINGS = (".png", "_panoptic.png")


def picture(task: Any, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
    """Pairs of images: the true segments (if known) on the left, those found on the right.

    Args:
      task: a `Panoptic`.
      batch: host arrays, with `instance_masks` and `segmentation` if they are known.
      outputs: of `task.predict`.

    Returns:
      uint8 [h, w, 3].
    """

    def found(image: np.ndarray, row: pictures.Row) -> np.ndarray:
        return _drawn(task, image, row["segments"], row["labels"])

    def true(image: np.ndarray, row: pictures.Row) -> np.ndarray:
        return _drawn(task, image, _true(task, row), row["box_label"])

    return pictures.pairs(batch, outputs, found, true, ("instance_masks", "segmentation"))


def _true(task: Any, truth: Mapping[str, np.ndarray]) -> Int[np.ndarray, "h w"]:
    """The numbers of the true segments of an image, as `task.segments_of` gives them."""
    bits, classes = truth["instance_masks"], truth["segmentation"]
    numbers = np.zeros(classes.shape, np.int32)
    for index in reversed(np.flatnonzero(truth["box_valid"])):
        numbers[np.unpackbits(bits[index], axis=-1, count=classes.shape[1]) > 0] = index + 1
    for place, label in enumerate(task.stuff):
        numbers[(numbers == 0) & (classes == label)] = len(bits) + 1 + place
    return numbers


def _drawn(
    task: Any,
    image: np.ndarray,
    numbers: Int[np.ndarray, "h w"],
    objects: Int[np.ndarray, " n"],
) -> np.ndarray:
    """The image under its segments, of which those of objects come first."""
    return pictures.segmented(image, numbers, *_coloured(task, numbers, objects))


def _coloured(
    task: Any, numbers: Int[np.ndarray, "h w"], objects: Int[np.ndarray, " n"]
) -> tuple[dict[int, tuple[int, int, int]], dict[int, str]]:
    """(colours, names) of the segments that are there, by their numbers, but for the background."""
    labels = np.concatenate([[0], objects, task.stuff])  # by number
    clear, count = pictures.background_of(task.class_names), len(objects)
    colours, texts = {}, {}
    for number in np.flatnonzero(np.bincount(numbers.ravel())).tolist():
        label = int(labels[number])
        if number and label not in clear:
            texts[number] = task.class_names[label]
            thing = number <= count
            colour = pictures.class_colour if thing else pictures.quiet_colour
            colours[number] = colour(number - 1 if thing else label)
    return colours, texts


def _on_photograph(prediction: Any) -> Int[np.ndarray, "h w"]:
    """The numbers of the photograph's own pixels; void where the network did not look."""
    return prediction.geometry.restore_labels(prediction.outputs["segments"], fill=0)


def _listed(task: Any, prediction: Any) -> tuple[Int[np.ndarray, "h w"], list[dict[str, Any]]]:
    """(the photograph's segments numbered from 1 on without gaps, what is said of each)."""
    outputs, numbers = prediction.outputs, _on_photograph(prediction)
    objects, areas = len(outputs["labels"]), np.bincount(numbers.ravel())
    areas[0] = 0  # void
    ids = np.cumsum(areas > 0).astype(np.int32) * (areas > 0)
    listed = []
    for number in np.flatnonzero(areas).tolist():
        thing = number <= objects
        label = outputs["labels"][number - 1] if thing else task.stuff[number - 1 - objects]
        one = {
            "id": int(ids[number]),
            "class": task.class_names[label],
            "isthing": thing,
            "area": int(areas[number]),
        }
        if thing:
            one["score"] = round(float(outputs["scores"][number - 1]), 6)
        listed.append(one)
    return ids[numbers], listed


def summary(task: Any, prediction: Any, top: int = 5) -> dict[str, Any]:
    """As of instances, and `segments_info`: of each segment its `id` in the map that `write`
    writes, `class`, `isthing`, `area` in pixels of the photograph, and of things `score`."""
    segments = _listed(task, prediction)[1]
    return {**instances.summary(task, prediction, top), "segments_info": segments}


def cell(task: Any, prediction: Any, top: int = 5) -> str:
    """One line for the table of `predict`: how many things of which class, and what stuff."""
    segments = _listed(task, prediction)[1]
    things = Counter(one["class"] for one in segments if one["isthing"]).most_common(top)
    stuff = sorted((one for one in segments if not one["isthing"]), key=lambda one: -one["area"])
    texts = [f"{count} {name}" for name, count in things] + [one["class"] for one in stuff[:top]]
    return ", ".join(texts) or "nothing"


def write(task: Any, prediction: Any, folder: Path, stem: str) -> None:
    """The photograph under its segments, as `stem.png`, and their map, as `stem_panoptic.png`.

    In the map the colour of a pixel is the id of its segment, R + 256 G + 65536 B, 0 of none, as in
    COCO's files.
    """
    outputs = prediction.outputs
    drawn = _drawn(task, prediction.image, _on_photograph(prediction), outputs["labels"])
    Image.fromarray(drawn).save(folder / f"{stem}.png")
    ids = _listed(task, prediction)[0]
    colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
    Image.fromarray(colours).save(folder / f"{stem}_panoptic.png")


def shown(task: Any, prediction: Any) -> list[Shown]:
    """The segments over the photograph; see `jaxvision.tasks.shown`."""
    numbers, outputs = _on_photograph(prediction), prediction.outputs
    colours, texts = _coloured(task, numbers, outputs["labels"])
    table = np.zeros((int(numbers.max(initial=0)) + 1, 3), np.uint8)
    for number, colour in colours.items():
        table[number] = colour
    clear = [number for number in range(len(table)) if number not in colours]
    areas, things = np.bincount(numbers.ravel()), len(outputs["labels"])
    legend = []
    for number, name in texts.items():
        said = f"{areas[number] / numbers.size:.1%}"
        if number <= things:
            said = f"score {outputs['scores'][number - 1]:.2f}, {said}"
        legend.append(Entry(name, colours[number], said))
    return [Overlay("Segments", label_colours(numbers, table, clear), legend)]


def files(task: Any, facts: Any, summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """As of instances, and `panoptic.json`, the segments as COCO's files of results have them."""
    category = categories(task, facts)
    annotations = [
        {
            "image_id": image_id(one["file"]),
            "file_name": f"{Path(one['picture']).stem}_panoptic.png",
            "segments_info": [
                {"id": part["id"], "category_id": category[part["class"]], "area": part["area"]}
                for part in one["segments_info"]
            ],
        }
        for one in summaries
    ]
    listed = [
        {"id": number, "name": name, "isthing": int(place in task.things)}
        for place, (name, number) in enumerate(category.items())
    ]
    return {
        **instances.files(task, facts, summaries),
        "panoptic.json": {"annotations": annotations, "categories": listed},
    }
