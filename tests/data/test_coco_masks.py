"""Masks and key points of COCO's JSON, and what is wrong with them."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as tools
from pycocotools.coco import COCO

from jaxvision.data import check
from jaxvision.data.annotations import KINDS
from jaxvision.data.sources import DataError, open_split
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.tasks import default_config

POINTS = ("nose", "left_eye", "right_eye")
SQUARE = [2, 4, 12, 4, 12, 14, 2, 14]


def content():
    """Two photographs; polygons, run lengths of both kinds, and an object without a mask."""
    crowd = np.zeros((30, 40), bool)
    crowd[20:, 10:30] = True
    text = tools.encode(np.asfortranarray(crowd))["counts"].decode()
    return {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 2, "file_name": "b.png", "width": 40, "height": 30},
        ],
        "categories": [
            {"id": 1, "name": "person", "keypoints": list(POINTS), "skeleton": [[1, 2], [3, 1]]},
            {"id": 5, "name": "dog"},
        ],
        "annotations": [
            {"id": 11, "image_id": 1, "category_id": 1, "bbox": [2, 4, 10, 10], "area": 99,
             "segmentation": [SQUARE, [20, 4, 24, 4, 24, 8, 20, 8]],
             "keypoints": [3, 5, 2, 7, 9, 1, 0, 0, 0], "num_keypoints": 2},
            {"id": 12, "image_id": 1, "category_id": 5, "bbox": [10, 20, 20, 10], "iscrowd": 1,
             "segmentation": {"size": [30, 40], "counts": text}},
            {"id": 13, "image_id": 2, "category_id": 5, "bbox": [0, 0, 2, 30],
             "segmentation": {"size": [30, 40], "counts": [0, 60, 1140]}},
            {"id": 14, "image_id": 2, "category_id": 1, "bbox": [5, 5, 10, 10], "segmentation": []},
        ],
    }  # fmt: skip


@pytest.fixture
def root(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    return tmp_path


def config(root, given, **options):
    (root / "a.json").write_text(json.dumps(given))
    data = default_config("localization").data
    data.source, data.dir = "coco", str(root)
    data.options = {"annotations": "a.json", **options}
    data.eval_transforms = ({"name": "resize", "size": 16},)
    return data


def stream(data, **more):
    return open_stream(data, "test", seed=0, train=False, annotations=("instances",), **more)


def changed(annotation, **keys):
    given = content()
    given["annotations"][annotation].update(keys)
    return given


def test_masks_and_points_of_a_file(root):
    data = config(root, content())
    data.eval_transforms = ()
    source = open_split(data, "train")
    facts = source.facts
    assert facts.keypoint_names == POINTS
    assert facts.keypoint_pairs == ((1, 2),)
    assert facts.skeleton == ((0, 1), (2, 0))
    assert facts.keypoint_order == (0, 2, 1)
    batch = stream(data).batch([0, 1])
    masks = np.unpackbits(batch["instance_masks"], axis=-1, count=40)
    assert masks.shape == (2, 100, 30, 40)
    assert batch["mask_valid"][:, :3].tolist() == [[True, True, False], [True, False, False]]
    assert batch["box_valid"][:, :3].tolist() == [[True, True, False], [True, True, False]]
    expected = np.zeros((30, 40))
    expected[4:14, 2:12] = expected[4:8, 20:24] = 1
    np.testing.assert_array_equal(masks[0, 0], expected)
    assert masks[0, 1].sum() == 200
    assert batch["box_crowd"][0, :2].tolist() == [False, True]
    assert masks[1, 0, :, :2].all()
    assert masks[1].sum() == 60
    # Pixel (3, 5) has its centre at (3.5, 5.5); hidden points count as labelled.
    points = batch["keypoints"][0, 0]
    assert points.tolist() == [[3.5, 5.5, 1], [7.5, 9.5, 1], [0, 0, 0]]
    assert not batch["keypoints"][0, 1:].any()


def test_nothing_is_drawn_where_masks_are_not_looked_at(root, monkeypatch):
    data = config(root, changed(0, segmentation=[[1, 2, 3]]))

    def drawn(*arguments):
        raise AssertionError("drawn")

    monkeypatch.setattr("jaxvision.data.masks._drawn", drawn)
    batch = stream(data, unused=("instance_masks",)).batch([0, 1])
    assert not {"instance_masks", "mask_valid", "segmentations"} & set(batch)
    assert batch["box_valid"].sum() == 4
    assert "keypoints" in batch
    with pytest.raises(AssertionError, match="drawn"):
        stream(data).batch([1, 1])


def test_a_file_without_masks_or_points_gives_none(root):
    given = content()
    for one in given["annotations"]:
        one.pop("segmentation"), one.pop("keypoints", None)
    del given["categories"][0]["keypoints"]
    batch = stream(config(root, given)).batch([0])
    assert not {"instance_masks", "mask_valid", "keypoints"} & set(batch)


@pytest.mark.parametrize(
    ("annotation", "segmentation", "message"),
    [
        (0, [[*SQUARE, 3]], "annotation 11 has a polygon of 9 numbers; expected x and y of 3"),
        (0, [SQUARE, [1, 1, 2, 2]], "annotation 11 has a polygon of 4 numbers"),
        (1, {"size": [40, 30], "counts": [1200]}, "annotation 12 has run lengths of 30x40 pixels, "
         "its image has 40x30"),
        (1, {"size": [30, 40], "counts": [1100]}, "annotation 12 has run lengths of 1100 pixels"),
        (1, {"size": [30, 40], "counts": "02"}, "annotation 12 has run lengths of 2 pixels"),
        (1, {"counts": [1200]}, "annotation 12 has the segmentation"),
    ],
)  # fmt: skip
def test_wrong_masks_are_named_by_their_annotation(root, annotation, segmentation, message):
    data = config(root, changed(annotation, segmentation=segmentation))
    with pytest.raises(UserError, match=f"a.png: {message}"):
        stream(data).batch([0])
    (report,) = check.check(data, ["train"], (KINDS["instances"],))
    (fault,) = report.faults[check.WRONG]
    assert message in fault
    assert stream(data).batch([1])["box_valid"].sum() == 2


def test_sizes_that_are_wrong_in_the_file(root):
    given = content()
    for image in given["images"]:
        image["width"] = 400
    with pytest.raises(UserError, match="annotation 12 has run lengths of 40x30 pixels, its image"):
        stream(config(root, given)).batch([0])
    batch = stream(config(root, given, check_sizes=False)).batch([0])
    assert batch["mask_valid"].sum() == 2


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"keypoints": [1, 2, 2]}, r"annotation 11 has the keypoints \[1, 2, 2\]; expected x, y"),
        ({"keypoints": [1, 2, 3] * 3}, "expected x, y and 0, 1 or 2 of each of 3"),
        ({"keypoints": [1, "2", 2] * 3}, "has the keypoints"),
        ({"keypoints": "none"}, "has the keypoints 'none'"),
    ],
)
def test_wrong_points(root, keys, message):
    with pytest.raises(DataError, match=message):
        open_split(config(root, changed(0, **keys)), "train")


def test_wrong_points_of_categories(root):
    given = content()
    given["categories"][1]["keypoints"] = ["nose", "tail"]
    with pytest.raises(DataError, match="'person' and 'dog' have different key points"):
        open_split(config(root, given), "train")
    given = content()
    given["categories"][0]["skeleton"] = [[1, 2], [0, 3]]
    with pytest.raises(DataError, match=r"skeleton of category 'person' has \[0, 3\]; expected"):
        open_split(config(root, given), "train")


# -- real data ------------------------------------------------------------------------------------


def real(shared_data, kind):
    data = default_config("localization").data
    data.source, data.dir = "coco", str(shared_data / "coco_mini_val")
    data.options = {"annotations": f"annotations/{kind}_val2017.json", "images": "val2017"}
    data.train = data.test = "val2017"
    return data


def test_real_masks_are_those_of_pycocotools(shared_data):
    data = real(shared_data, "instances")
    theirs = COCO(str(shared_data / "coco_mini_val/annotations/instances_val2017.json"))
    records = open_stream(data, "val2017", seed=0, train=False, annotations=("instances",))
    seen = 0
    for index in range(25):
        record = records.decode(records.source[index], "a")
        found = theirs.imgToAnns[records.source.image_id(index)]
        size = record["image"].shape[:2]
        masks = np.array([theirs.annToMask(one) for one in found]).reshape(-1, *size)
        there = masks.any((1, 2))
        np.testing.assert_array_equal(record["instance_masks"].stack(), masks[there])
        codes = [theirs.annToRLE(one)["counts"].decode() for one in found]
        ours = [one["counts"] for one in record["instance_masks"].to_rle()]
        assert ours == [code for code, kept in zip(codes, there) if kept]
        seen += len(masks)
    assert seen > 150


def test_real_points(shared_data):
    source = open_split(real(shared_data, "person_keypoints"), "val2017").source
    assert len(source.facts.keypoint_names) == 17
    assert len(source.facts.keypoint_pairs) == 8
    assert len(source.facts.skeleton) == 19
    assert source.facts.skeleton[0] == (15, 13)
    points = source.rows["keypoints"]
    assert points.shape == (118, 17, 3)
    assert points[..., 2].any(1).sum() == 68
