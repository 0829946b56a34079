"""Objects in Cityscapes' files of instances."""

import numpy as np
import pytest
from PIL import Image

from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.tasks import default_config


def write(root, town="ulm", name="ulm_000000_000019"):
    photos, masks = root / "leftImg8bit" / "train" / town, root / "gtFine" / "train" / town
    photos.mkdir(parents=True)
    masks.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(photos / f"{name}_leftImg8bit.png")
    numbers = np.full((8, 12), 7, np.uint16)  # road
    numbers[0] = 4  # of no class
    numbers[2:4, 3:7] = 26001  # two cars
    numbers[5:8, 0:2] = 26000
    numbers[6, 10] = 24  # people who are not told apart
    Image.fromarray(numbers).save(masks / f"{name}_gtFine_instanceIds.png")
    return numbers


def opened(root, annotations=("instances",), classes=(), **options):
    data = default_config("detection").data
    data.source, data.dir, data.train, data.options = "cityscapes", str(root), "train", options
    data.classes, data.max_instances = classes, 5
    return open_stream(data, "train", seed=0, train=False, annotations=annotations)


def test_objects_and_groups(tmp_path):
    write(tmp_path)
    stream = opened(tmp_path)
    assert stream.source.class_names[:3] == ("person", "rider", "car")
    row = stream.source[0]
    assert row["box_label"].tolist() == [0, 2, 2]
    assert row["box_crowd"].tolist() == [True, False, False]
    expected = [[10, 6, 11, 7], [0, 5, 2, 8], [3, 2, 7, 4]]
    np.testing.assert_array_equal(row["boxes"], expected)
    assert (row["instances"] == 3).sum() == 8
    assert stream.source.image_id(0) == "ulm_000000_000019"


def test_the_class_of_each_pixel(tmp_path):
    numbers = write(tmp_path)
    stream = opened(tmp_path, ("instances", "segmentation"), stuff=True)
    names, labels = stream.source.class_names, stream.source[0]["segmentation"]
    assert len(names) == 19
    assert (labels[0] == 255).all()
    assert (labels[numbers == 7] == names.index("road")).all()
    assert (labels[numbers >= 26000] == names.index("car")).all()
    assert stream.source.facts.things == tuple(range(11, 19))


def test_chosen_classes(tmp_path):
    write(tmp_path)
    row = opened(tmp_path, classes=("bicycle", "car")).source[0]
    assert row["box_label"].tolist() == [1, 1]
    with pytest.raises(UserError, match="Unknown class of Cityscapes 'auto'"):
        opened(tmp_path, classes=("auto",))


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match="There is no folder"):
        opened(tmp_path)
    write(tmp_path)
    next(tmp_path.rglob("*_instanceIds.png")).unlink()
    with pytest.raises(UserError, match=r"1 of 1 masks of .* are missing"):
        opened(tmp_path)
