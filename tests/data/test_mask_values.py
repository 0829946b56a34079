"""Stored values of masks: classes, void, and masks that contradict the configuration."""

import numpy as np
import pytest

from jaxvision.data.annotations import Settings, named
from jaxvision.data.codecs import encode_png
from jaxvision.data.decode import Decode
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.tasks import default_config

IMAGE = encode_png(np.full((6, 8, 3), 9, np.uint8))


def test_mask_values_are_mapped_to_classes():
    settings = Settings(num_classes=3, mask_values=(7, 11, 21))
    decode = Decode(3, named(["segmentation"]), settings)
    mask = np.resize(np.array([7, 11, 21, 0, 255], np.uint8), (6, 8))
    out = decode({"image": IMAGE, "segmentation": encode_png(mask)}, "r")["segmentation"]
    expected = {7: 0, 11: 1, 21: 2, 0: 255, 255: 255}
    np.testing.assert_array_equal(out, np.vectorize(expected.get)(mask))


def test_void_is_of_stored_values():
    settings = Settings(num_classes=3, void=(0,), mask_values=(1, 2, 3))
    decode = Decode(3, named(["segmentation"]), settings)
    mask = np.resize(np.arange(4, dtype=np.uint8), (6, 8))
    out = decode({"image": IMAGE, "segmentation": encode_png(mask)}, "r")["segmentation"]
    np.testing.assert_array_equal(out, np.array([255, 0, 1, 2])[mask])


def two_classes(folder, masks):
    """The configuration of a folder of images and masks of two classes."""
    for index, mask in enumerate(masks):
        for name, content in (("train", IMAGE), ("trainannot", encode_png(mask))):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{index:02}.png").write_bytes(content)
    data = default_config().data
    data.source, data.dir, data.classes = "masks", str(folder), ("background", "cell")
    return data


def test_masks_of_0_and_255_are_met_at_the_door(tmp_path):
    mask = np.zeros((6, 8), np.uint8)
    mask[:3] = 255
    data = two_classes(tmp_path, [mask] * 4)
    message = (
        r"There are 2 classes, but 4 masks of the split hold only one of them\. Values found: "
        r"0 \(50\.0%\), 255 \(50\.0%\)\. Set data\.mask_values=\(0, 255\)"
    )
    with pytest.raises(UserError, match=message):
        open_stream(data, "train", seed=0, train=True)
    data.mask_values = (0, 255)
    record = open_stream(data, "train", seed=0, train=True)[0]
    np.testing.assert_array_equal(record["segmentation"], mask > 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mask_values": (1, 2)},
            r"none of them\. Values found: 0 \(100\.0%\)\. data\.mask_values",
        ),
        ({"void": (0,)}, r"none of them\. Values found: 0"),
        ({}, r"only one of them\. Values found: 0 \(100\.0%\)\. data\.mask_values names"),
    ],
)
def test_masks_of_fewer_than_two_classes(tmp_path, changes, message):
    data = two_classes(tmp_path, [np.zeros((6, 8), np.uint8)] * 3)
    data.update(changes)
    with pytest.raises(UserError, match=message):
        open_stream(data, "train", seed=0, train=True)


def test_one_mask_with_the_rare_class_is_enough(tmp_path):
    masks = np.zeros((20, 6, 8), np.uint8)
    masks[:, 0] = 255
    masks[13, 3, 3] = 1
    open_stream(two_classes(tmp_path, masks), "train", seed=0, train=True)


def test_a_stored_value_is_a_class_or_void(tmp_path):
    data = two_classes(tmp_path, [np.zeros((6, 8), np.uint8)])
    data.void, data.mask_values = (7, 3), (0, 3)
    with pytest.raises(UserError, match=r"data\.void and data\.mask_values both have 3"):
        open_stream(data, "train", seed=0, train=True)
