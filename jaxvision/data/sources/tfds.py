"""TFDS data sets prepared as ArrayRecord, read without TensorFlow; built-in ones among them."""

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvision.data.facts import Facts
from jaxvision.data.sources.splits import Source
from jaxvision.errors import UserError, unknown
from jaxvision.progress import waiting


@dataclass(frozen=True)
class Tfds:
    """A TFDS data set prepared as ArrayRecord; images stay encoded."""

    reader: Any
    builder_name: str
    class_names: tuple[str, ...]
    keys: dict[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.reader[index]
        record = {self.keys.get(key, key): value for key, value in record.items()}
        if "label" in record:
            record["label"] = int(record["label"])
        if isinstance(record.get("captions"), dict):  # of coco_captions, which numbers them
            record["captions"] = record["captions"]["text"]
        if "objects" in record and "bbox" in record["objects"]:
            record |= _objects(record.pop("objects"))
        return record

    def name(self, index: int) -> str:
        return f"{self.builder_name}[{index}]"


def tfds(data: ConfigDict, **options: Any) -> Callable[[str], Source]:
    """built-in data sets, and any TFDS data set prepared as ArrayRecord: data.name, data.dir"""
    directory = str(Path(data.dir).expanduser()) if data.dir else ""
    builder = tfds_builder(data.name, directory, options)

    def load(split: str) -> Source:
        source = _tfds_split(builder, split)
        names = tuple(data.classes) or source.class_names
        things = {source.class_names[index] for index in source.facts.things}
        places = tuple(index for index, name in enumerate(names) if name in things)
        return replace(source, class_names=names, facts=replace(source.facts, things=places))

    return load


def _objects(objects: dict[str, Any]) -> dict[str, Any]:
    """Boxes as TFDS keeps them, (y0, x0, y1, x1) in parts of the sides, as a record has them.

    VOC's difficult objects are crowds here, as with `data.source="voc"`.
    """
    boxes = np.asarray(objects["bbox"], np.float32).reshape(-1, 4)
    found = {"relative_boxes": boxes[:, [1, 0, 3, 2]]}
    for theirs, key in _TFDS_OBJECTS.items():
        if theirs in objects:
            found[key] = np.asarray(objects[theirs]).reshape(len(boxes))
    return found


# What a record calls what data sets of the catalogue (coco, voc) say of each object.
_TFDS_OBJECTS = {
    "label": "box_label",
    "area": "box_area",
    "is_crowd": "box_crowd",
    "is_difficult": "box_crowd",
}
_TFDS_MASKS = ("segmentation", "segmentation_mask", "segmentation_label", "label_map")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what TFDS says of data sets that are not in its catalogue."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def tfds_builder(name: str, data_dir: str = "", options: dict[str, Any] | None = None):
    """The TFDS builder of `name`, prepared; built-in data sets are prepared on first use.

    Args:
      name: `digits`, `shapes` or a name of the TFDS catalogue, e.g. `"imagenet2012:5.1.0"`.
      data_dir: where prepared data sets live (empty: the TFDS default).
      options: configuration of a built-in data set, e.g. `{"size": 64, "train": 4000}`.

    Raises:
      UserError: unknown data set or option, or one that `jaxvision data prepare` must make first.
    """
    import tensorflow_datasets as tfds

    from jaxvision.data.builders import BUILDERS

    if name in BUILDERS:
        return _built_in(name, options or {}, data_dir or None)
    if options:
        raise UserError(f"data.options are for built-in data sets; {name!r} takes none.")
    try:
        builder = tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError, OSError) as error:
        short = name.split(":")[0].split("/")[0]
        known = {*BUILDERS, *tfds.list_builders(with_community_datasets=False)}
        if short in known:  # it is the version or the configuration that is unknown
            raise UserError(f"No data set {name!r}: {error}") from error
        raise unknown("data set", short, known) from error
    except ImportError:  # what the builder imports to prepare; reading the prepared needs none
        builder = None
    if builder is None or not builder.is_prepared():
        where = f" --data-dir {data_dir}" if data_dir else ""
        raise UserError(
            f"Data set {name!r} is not prepared. Prepare it once: "
            f"jaxvision data prepare {name}{where}"
        )
    return builder


def _built_in(name: str, options: dict[str, Any], data_dir: str | None) -> Any:
    """The builder of a built-in data set, prepared.

    Raises:
      UserError: it cannot be prepared, or an option is wrong.
    """
    import tensorflow_datasets as tfds

    from jaxvision.data.builders import make

    with _quiet():
        builder = make(name, options, data_dir)
    if builder.is_prepared():
        return builder
    tfds.disable_progress_bar()
    try:
        # TFDS's own bars are many, for a matter of seconds.
        with _quiet(), waiting(f"Preparing {name}"), contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except (RuntimeError, OSError) as error:
        again = make(name, options, data_dir)
        if again.is_prepared():  # by another process of this run, at the same time
            return again
        raise UserError(
            f"Cannot prepare {name!r} in {builder.data_path}: {str(error).splitlines()[0]}"
        ) from error
    return builder


def _tfds_split(builder: Any, split: str) -> Tfds:
    import tensorflow_datasets as tfds

    features = builder.info.features
    if split not in builder.info.splits:
        raise unknown(f"split of {builder.info.name}", split, builder.info.splits)
    if "image" not in features:
        raise UserError(f"Data set {builder.info.name!r} has no image, but {', '.join(features)}.")
    skip = tfds.decode.SkipDecoding()
    decoders = {k: skip for k, f in features.items() if isinstance(f, tfds.features.Image)}
    keys: dict[str, str] = {}
    for alias in _TFDS_MASKS:
        if alias in decoders and "segmentation" not in keys.values():
            keys[alias] = "segmentation"
    known = [features["label"]] if "label" in features else []
    if "objects" in features and "label" in getattr(features["objects"], "feature", ()):
        known.append(features["objects"].feature["label"])
    labels = [f for f in known if hasattr(f, "names")]
    names = tuple(labels[0].names) if labels else ()
    reader = builder.as_data_source(split=split, decoders=decoders or None)
    return Tfds(reader, builder.info.name, names, keys, getattr(builder, "FACTS", Facts()))
