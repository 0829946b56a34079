"""Preparing data sets of the TFDS catalogue as ArrayRecord, to be read without TensorFlow."""

from typing import Any

from jaxvision.data.builders import BUILDERS
from jaxvision.data.sources import tfds_builder
from jaxvision.errors import UserError, unknown


def prepare(name: str, data_dir: str = "") -> Any:
    """Downloads and prepares a data set; returns its TFDS builder.

    Args:
      name: `digits`, `shapes`, or a name of the catalogue (`"cifar10"`, `"oxford_iiit_pet:4.0.0"`).
      data_dir: where to (empty: the TFDS default).

    Raises:
      UserError: no such data set, no network, files that must be fetched by hand, or its builder
        needs TensorFlow, once, to encode.
    """
    import tensorflow_datasets as tfds

    if name in BUILDERS:
        return tfds_builder(name, data_dir)
    short = name.split(":")[0].split("/")[0]
    if short not in tfds.list_builders(with_community_datasets=False):
        raise unknown(
            "data set", short, {*BUILDERS, *tfds.list_builders(with_community_datasets=False)}
        )
    try:
        builder = tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
        builder.download_and_prepare()
    except (ImportError, ModuleNotFoundError) as error:
        raise UserError(
            f"The builder of {name!r} needs {error.name or error} to prepare (reading does not). "
            "Install it for this once, in another environment if you like: pip install tensorflow"
        ) from error
    except (ValueError, AssertionError, tfds.core.DatasetNotFoundError) as error:
        raise UserError(f"Cannot prepare {name!r}: {error}") from error  # version, manual download
    except (OSError, tfds.download.DownloadError) as error:
        raise UserError(f"Cannot download {name!r}: {error}") from error
    return builder
