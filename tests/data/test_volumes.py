"""The built-in volumes: decided by the seed, and labelled exactly."""

import numpy as np
import pytest

from jaxvision.data.builders import make
from jaxvision.data.builders.volumes import draw
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.tasks import configuration


def test_a_record_is_decided_by_seed_and_index():
    first, again, other = draw(3, 5, 24), draw(3, 5, 24), draw(3, 6, 24)
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    assert (first["image"] != other["image"]).any()
    assert first["image"].shape == (24, 24, 24, 1)
    assert set(np.unique(first["segmentation"])) == {0, 1, 2}


def test_brightness_tells_the_classes_apart_but_for_the_bones():
    record = draw(0, 0, 32)
    image, labels = record["image"][..., 0].astype(float), record["segmentation"]
    background, organ, lesion = (np.median(image[labels == k]) for k in range(3))
    assert background < organ - 30 < lesion - 60
    assert (image[labels == 0] > 180).sum() > 50  # brighter than the organ, and none of it


def test_they_are_read_like_any_other_data_set():
    data = configuration.default_config().data
    data.name, data.channels = "volumes", 1
    data.options = {"size": 16, "train": 3, "test": 2}
    data.classes = ("background", "organ", "lesion")
    stream = open_stream(data, "test", seed=0, train=False, annotations=("segmentation",))
    assert stream.order.count == 2
    expected = draw(0, 2**31 + 1, 16)
    np.testing.assert_array_equal(stream[1]["image"], expected["image"])
    np.testing.assert_array_equal(stream[1]["segmentation"], expected["segmentation"])


def test_sizes_out_of_range_are_refused():
    with pytest.raises(UserError, match="volumes: size is 8; expected an integer from 16 to 512"):
        make("volumes", {"size": 8})
    with pytest.raises(UserError, match="option of data set 'volumes' 'sizes'"):
        make("volumes", {"sizes": 32})
