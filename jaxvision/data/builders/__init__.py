"""Built-in data sets as TFDS builders: they need no network and no TensorFlow.

Importing this module imports TFDS, so `jaxvision` itself does not import it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow_datasets as tfds

from jaxvision.data.builders.digits import Digits
from jaxvision.data.builders.drawn import DrawnConfig
from jaxvision.data.builders.shapes import Shapes, ShapesConfig
from jaxvision.data.builders.volumes import Volumes, VolumesConfig
from jaxvision.errors import unknown

BUILDERS = {"digits": Digits, "shapes": Shapes, "volumes": Volumes}
_CONFIGS = {"shapes": ShapesConfig, "volumes": VolumesConfig}

__all__ = ["BUILDERS", "Digits", "Shapes", "ShapesConfig", "Volumes", "VolumesConfig", "make"]


def make(name: str, options: Mapping[str, Any], data_dir: str | None = None) -> Any:
    """The builder of a built-in data set, to be prepared as ArrayRecord.

    Args:
      name: one of `BUILDERS`.
      options: fields of its configuration: `ShapesConfig`, `VolumesConfig`; digits has none.
      data_dir: where prepared data sets live (None: the TFDS default).

    Raises:
      UserError: unknown data set, or unknown option or value.
    """
    if name not in BUILDERS:
        raise unknown("built-in data set", name, BUILDERS)
    config_class: Any = _CONFIGS.get(name)
    fields = dataclasses.fields(DrawnConfig) if config_class else ()
    inherited = dataclasses.fields(tfds.core.BuilderConfig)
    valid = {f.name for f in fields} - {f.name for f in inherited}
    for option in options:
        if option not in valid:
            raise unknown(f"option of data set {name!r}", option, valid)
    keywords = {"config": config_class(**options)} if config_class else {}
    return BUILDERS[name](data_dir=data_dir, file_format="array_record", **keywords)
