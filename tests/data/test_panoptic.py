"""COCO's panoptic files: things and stuff, and what is wrong with them."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxvision.data.annotations import named
from jaxvision.data.check import check
from jaxvision.data.codecs import CorruptImageError
from jaxvision.data.segment_maps import segment_numbers
from jaxvision.data.sources import DataError, open_split
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.tasks import default_config

# Segments of the first photograph; the last row of pixels is of none.
MAP = np.zeros((6, 8), np.int32)
MAP[:5, :4], MAP[:5, 4:6], MAP[:5, 6:], MAP[2:4, 1:3] = 300, 70000, 9, 8000


def content():
    return {
        "images": [
            {"id": 3, "file_name": "a.jpg", "width": 8, "height": 6},
            {"id": 4, "file_name": "b.jpg", "width": 8, "height": 6},
        ],
        "categories": [
            {"id": 20, "name": "sky", "isthing": 0},
            {"id": 1, "name": "person", "isthing": 1},
            {"id": 7, "name": "dog", "isthing": 1},
        ],
        "annotations": [
            {"image_id": 4, "file_name": "b.png", "segments_info": []},
            {"image_id": 3, "file_name": "a.png", "segments_info": [
                {"id": 70000, "category_id": 7, "bbox": [4, 0, 2, 5], "area": 10, "iscrowd": 0},
                {"id": 300, "category_id": 20, "bbox": [0, 0, 4, 5], "area": 16},
                {"id": 8000, "category_id": 1, "bbox": [1, 2, 2, 2], "area": 4, "iscrowd": 0},
                {"id": 9, "category_id": 1, "bbox": [6, 0, 2, 5], "area": 10, "iscrowd": 1},
            ]},
        ],
    }  # fmt: skip


def write(path, numbers):
    colours = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], -1).astype(np.uint8)
    Image.fromarray(colours).save(path)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "alone" / "val").mkdir(parents=True)
    (tmp_path / "alone" / "panoptic_val").mkdir()
    root = tmp_path / "alone"
    for name in ("a", "b"):
        Image.new("RGB", (8, 6)).save(root / "val" / f"{name}.jpg")
    write(root / "panoptic_val" / "a.png", MAP)
    write(root / "panoptic_val" / "b.png", np.zeros((6, 8), int))
    return root


def config(root, given=None, **options):
    (root / "panoptic_val.json").write_text(json.dumps(given or content()))
    data = default_config("localization").data
    data.source, data.dir = "panoptic", str(root)
    data.options = {"annotations": "panoptic_{split}.json", "images": "{split}", **options}
    data.train = data.test = "val"
    data.eval_transforms = ()
    return data


BOTH = ("instances", "segmentation")


def batch(data, rows=(0, 1), annotations=BOTH, **more):
    stream = open_stream(data, "val", seed=0, train=False, annotations=annotations, **more)
    return stream.batch(rows)


def test_things_and_stuff(root):
    data = config(root)
    source = open_split(data, "val")
    assert source.class_names == ("person", "dog", "sky")  # by id
    assert source.facts.category_ids == (1, 7, 20)
    assert source.facts.things == (0, 1)
    out = batch(data)
    assert out["box_valid"].sum(1).tolist() == [3, 0]
    assert out["box_label"][0, :3].tolist() == [0, 0, 1]  # by the numbers of the segments
    assert out["box_crowd"][0, :3].tolist() == [True, False, False]
    assert out["boxes"][0, :3].tolist() == [[6, 0, 8, 5], [1, 2, 3, 4], [4, 0, 6, 5]]
    assert out["box_area"][0, :3].tolist() == [10, 4, 10]
    masks = np.unpackbits(out["instance_masks"][0, :3], axis=-1).astype(bool)
    np.testing.assert_array_equal(masks, [MAP == 9, MAP == 8000, MAP == 70000])
    classes = np.full((6, 8), 255)
    for number, label in ((300, 2), (70000, 1), (9, 0), (8000, 0)):
        classes[number == MAP] = label
    np.testing.assert_array_equal(out["segmentation"], [classes, np.full((6, 8), 255)])
    assert source.image_id(0) == 3
    assert source.name(1).endswith("b.jpg")


def test_a_check_counts_objects_of_things_and_images_of_stuff(root):
    (report,) = check(config(root), ["val"], named(BOTH))
    assert report.classes == {"person": 2, "dog": 1, "sky": 1}
    assert report.per_image == {4: 1, 0: 1}


def test_things_alone(root):
    data = config(root, stuff=False)
    source = open_split(data, "val")
    assert source.class_names == ("person", "dog")
    out = batch(data)
    assert set(np.unique(out["segmentation"])) == {0, 1, 255}
    assert (out["segmentation"][0][MAP == 300] == 255).all()
    data.classes = ("dog", "person", "cat")
    assert open_split(data, "val").facts.things == (0, 1)
    assert batch(data)["box_label"][0, :3].tolist() == [1, 1, 0]
    data.options = {**data.options, "stuff": True}
    with pytest.raises(DataError, match=r"class of 1 objects \(first in a.jpg\): 'sky'"):
        open_split(data, "val")


def test_pngs_are_decoded_once_and_only_where_they_are_looked_at(root, monkeypatch):
    import jaxvision.data.segment_maps as maps

    decoded = []

    def decode(*arguments):
        decoded.append(arguments)
        return original(*arguments)

    original = maps.decode_image
    monkeypatch.setattr(maps, "decode_image", decode)
    data = config(root)
    out = batch(data, (0,), ("instances",), unused=("instance_masks",))
    assert out["box_valid"].sum() == 3
    assert "instance_masks" not in out
    assert not decoded
    batch(data, (0,))
    assert len(decoded) == 1


def changed(way, value):
    given = content()
    *path, last = way
    part = given
    for key in path:
        part = part[key]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return given


FIRST = ("annotations", 1, "segments_info", 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (changed(["annotations", 0, "image_id"], 9), "annotation 0 is of image 9, which is not"),
        (changed(["annotations", 0, "image_id"], 3), "annotation 1 is the second of image 3"),
        (changed(["annotations", 0, "file_name"], ...), "annotation 0 has no 'file_name'"),
        (changed(["annotations", 0, "segments_info"], 3), "has file_name 'b.png' and segments_"),
        (changed(["annotations", 0, "file_name"], "../b.png"), "names the image '../b.png'"),
        (changed(["annotations", 0, "file_name"], "c.png"), "1 of 2 masks of .* first .*c.png"),
        (changed([*FIRST, "id"], 0), "annotation 1 .3. has the segment .*; expected an 'id'"),
        (changed([*FIRST, "id"], 300), "has the segment .*; expected an 'id' of its own"),
        (changed([*FIRST], 5), "has the segment 5; expected"),
        (changed([*FIRST, "category_id"], 2), "segment 70000 is of category 2; there are 1, 7, 20"),
        (changed([*FIRST, "bbox"], [1, 2]), r"segment 70000 has the bbox \[1, 2\]"),
        (changed([*FIRST, "bbox"], ...), "segment 70000 has the bbox None"),
        (changed([*FIRST, "area"], "big"), "segment 70000 has the area 'big'"),
    ],
)
def test_what_is_wrong_with_a_file(root, given, message):
    with pytest.raises(DataError, match=message):
        open_split(config(root, given), "val")


def test_images_without_annotation(root):
    given = content()
    del given["annotations"][0]
    with pytest.raises(DataError, match=r"1 images have no annotation, first 'b.jpg'"):
        open_split(config(root, given), "val")


def test_pngs_that_do_not_fit(root):
    write(root / "panoptic_val" / "a.png", np.where(MAP == 9, 10, MAP))
    with pytest.raises(UserError, match=r"a.jpg \(mask\) has a segment of number 10 "):
        batch(config(root), (0,))
    write(root / "panoptic_val" / "a.png", MAP[:4])
    with pytest.raises(UserError, match="the image is 8x6 pixels, its mask 8x4"):
        batch(config(root), (0,))
    (root / "panoptic_val" / "a.png").write_bytes(b"no image")
    with pytest.raises(CorruptImageError, match=r"a\.jpg"):
        batch(config(root), (0,))


def test_numbers_of_colours():
    colours = np.array([[[1, 2, 3], [255, 255, 255], [0, 0, 0]]], np.uint8)
    assert segment_numbers(colours).tolist() == [[1 + 2 * 256 + 3 * 65536, (1 << 24) - 1, 0]]


def test_real_files(shared_data):
    root = shared_data / "coco128_val"
    data = default_config("localization").data
    data.source, data.dir = "panoptic", str(root)
    data.options = {
        "annotations": "panoptic_segmentation/annotations/panoptic_{split}.json",
        "images": "images/{split}",
    }
    data.train = data.test = "val2017"
    source = open_split(data, "val2017").source
    assert (len(source), len(source.class_names), len(source.facts.things)) == (100, 133, 80)
    records = open_stream(data, "val2017", seed=0, train=False, annotations=BOTH)
    stored = json.loads((root / data.options["annotations"].format(split="val2017")).read_text())
    segments = {one["image_id"]: one["segments_info"] for one in stored["annotations"]}
    for index in range(12):
        record = records.decode(records.source[index], "a")
        theirs = segments[source.image_id(index)]
        areas = np.zeros(200, int)
        for one in theirs:
            areas[source.facts.category_ids.index(one["category_id"])] += one["area"]
        found = np.bincount(record["segmentation"].ravel(), minlength=256)
        np.testing.assert_array_equal(found[:200], areas)
        counts = np.bincount(record["instances"].ravel())[1:]
        np.testing.assert_array_equal(counts, record["box_area"])
