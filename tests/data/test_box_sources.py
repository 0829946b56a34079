"""Images with boxes: COCO's JSON, VOC's XML, YOLO's text files, and what is wrong with them."""

import importlib
import io
import json
import os

import numpy as np
import pytest
import tensorflow_datasets
from PIL import Image

from jaxvision.data.codecs import encode_png
from jaxvision.data.facts import Facts
from jaxvision.data.sources import DataError, image_id, open_split
from jaxvision.data.sources.boxes import NO_AREA, OUTSIDE
from jaxvision.data.sources.coco import NO_CATEGORY
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.tasks import default_config


def config(source, root, **keys):
    options = keys.pop("options", {})
    data = default_config("localization").data
    data.source, data.dir, data.options = source, str(root), options
    data.eval_transforms = ({"name": "resize", "size": 16},)
    for key, value in keys.items():
        data[key] = value
    return data


def draw(path, size=(40, 30), level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


def record(data, split="train", index=0):
    source = open_split(data, split)
    return {k: v for k, v in source[index].items() if k != "image"}


def batch(data, split="test", count=2):
    stream = open_stream(data, split, seed=0, train=False, annotations=("instances",))
    return stream.batch(range(count))


# -- COCO -----------------------------------------------------------------------------------------


def coco_content():
    """Ids with gaps in any order; a crowd; an image without annotations."""
    return {
        "images": [
            {"id": 42, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 7, "file_name": "sub/b.png", "width": 40, "height": 30},
            {"id": 2**40, "file_name": "c.png"},
        ],
        "categories": [
            {"id": 90, "name": "toothbrush"},
            {"id": 3, "name": "car", "supercategory": "vehicle"},
            {"id": 18, "name": "dog"},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1, 2, 10, 20], "area": 150.5,
             "iscrowd": 0, "segmentation": [[1, 2, 11, 2, 11, 22]]},
            {"id": 2, "image_id": 42, "category_id": 90, "bbox": [0.5, 0, 8, 4], "iscrowd": 1,
             "area": 9, "segmentation": {"counts": [0, 1200], "size": [30, 40]}},
            {"id": 3, "image_id": 7, "category_id": 3, "bbox": [30, 20, 20, 20]},
        ],
    }  # fmt: skip


@pytest.fixture
def root(tmp_path):
    """A folder without neighbours, among which files would be looked for."""
    (tmp_path / "alone" / "data").mkdir(parents=True)
    return tmp_path / "alone" / "data"


@pytest.fixture
def coco_root(root):
    for name in ("a.png", "sub/b.png", "c.png"):
        draw(root / "images" / name)
    return root


def coco_data(root, content=None, **keys):
    text = content if isinstance(content, str) else json.dumps(content or coco_content())
    (root / "annotations.json").write_text(text)
    keys.setdefault("options", {"annotations": "annotations.json", "images": "images"})
    return config("coco", root, **keys)


def test_coco(coco_root):
    data = coco_data(coco_root)
    source = open_split(data, "train")
    assert source.class_names == ("car", "dog", "toothbrush")  # by id
    assert source.facts.category_ids == (3, 18, 90)
    assert [image_id(source, i) for i in range(3)] == [42, 7, 2**40]
    crowd, two, none = (record(data, index=i) for i in range(3))
    assert crowd["boxes"].tolist() == [[0.5, 0, 8.5, 4]]
    assert (crowd["box_label"].tolist(), crowd["box_crowd"].tolist()) == ([2], [True])
    assert two["boxes"].tolist() == [[1, 2, 11, 22], [30, 20, 50, 40]]
    assert (two["box_label"].tolist(), two["box_area"].tolist()) == ([1, 0], [150.5, 400])
    assert none["boxes"].shape == (0, 4)
    assert "annotated_size" not in none
    assert two["annotated_size"].tolist() == [30, 40]
    out = batch(data, "anything", 3)
    # Of the second image: clipped to 40x30, then resized to 16x16.
    np.testing.assert_allclose(out["boxes"][1, 1], [12, 32 / 3, 16, 16], rtol=1e-6)
    np.testing.assert_allclose(out["box_area"][1, :2], np.float32([150.5, 400]) * (16 * 16 / 1200))
    assert out["box_valid"].sum(1).tolist() == [1, 2, 0]
    cut = open_split(data, "train[1:]+test[:1]")
    assert [image_id(cut, i) for i in range(3)] == [7, 2**40, 42]
    data.cache = True
    stream = open_stream(data, "train", seed=0, train=False, annotations=("instances",))
    assert image_id(stream.source, 1) == 7


def test_coco_with_classes_that_its_file_lacks(coco_root):
    names = ("toothbrush", "cat", "car", "dog")
    data = coco_data(coco_root, classes=names)
    source = open_split(data, "train")
    assert source.class_names == names
    assert source.facts.category_ids == (90, NO_CATEGORY, 3, 18)
    assert source[1]["box_label"].tolist() == [3, 2]
    facts = Facts(class_names=names, category_ids=source.facts.category_ids)
    assert Facts.from_json(facts.to_json()) == facts
    data.classes = ("toothbrush", "cars", "cat")
    with pytest.raises(
        DataError, match=r"class of 1 objects \(first in sub/b.png\): 'dog'"
    ) as error:
        open_split(data, "train")
    assert len(error.value.problems) == 2
    assert "'car'. Did you mean 'cars'" in error.value.problems[1]
    data.classes = ("toothbrush", "car", "dog", "car")
    with pytest.raises(UserError, match=r"data.classes names 'car' twice"):
        open_split(data, "train")
    data.classes = ("toothbrush", "car", "dog", "cat")
    assert len(open_split(data, "train")) == 3


def test_files_of_coco_by_split(coco_root):
    content = coco_content()
    few = {
        **content,
        "annotations": content["annotations"][:1],
        "categories": content["categories"][2:],
    }
    (coco_root / "json").mkdir()
    (coco_root / "json" / "in_train.json").write_text(json.dumps(content))
    (coco_root / "json" / "in_val.json").write_text(json.dumps(few))
    data = config("coco", coco_root / "images", options={"annotations": "../json/in_{split}.json"})
    val = open_split(data, "val")
    assert val.class_names == ("car", "dog", "toothbrush")  # counted as in the training split
    assert val.facts.category_ids == (NO_CATEGORY, 18, NO_CATEGORY)
    assert val[1]["box_label"].tolist() == [1]
    with pytest.raises(UserError, match=r"in_test.json.*'test'. There are: in_train.json, in_val"):
        open_split(data, "test")
    files = {"annotations": {"train": "json/in_train.json"}, "images": "images"}
    data = config("coco", coco_root, options=files)
    assert len(open_split(data, "train[:2]")) == 2
    with pytest.raises(UserError, match=r"split of data.options.annotations: 'test'. Valid: train"):
        open_split(data, "test")
    with pytest.raises(UserError, match=r"needs the option 'annotations'"):
        open_split(config("coco", coco_root), "train")
    with pytest.raises(UserError, match=r"annotations is \['a'\]; expected the name of a JSON"):
        open_split(config("coco", coco_root, options={"annotations": ["a"]}), "train")


def changed(path, value):
    """COCO's content with one value changed; `...` takes it away."""
    content = coco_content()
    *way, last = path
    part = content
    for key in way:
        part = part[key]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', r"annotations.json is no valid JSON: Expecting value: line 1"),
        ("[" * 100_000, "no valid JSON"),
        ("[1]", "holds a list; a COCO file of instances has 'images', 'annotations' and"),
        (changed(["categories"], ...), "no list 'categories', but 'images', 'annotations'"),
        (changed(["categories"], []), "has no category"),
        (changed(["images"], []), "has no image"),
        (changed(["annotations", 1, "bbox"], ...), "annotation 1 has no 'bbox': "),
        (changed(["annotations", 0], 5), "annotation 0 is no table: 5"),
        (changed(["annotations", 0, "bbox"], [1, 2, 3]), r"has the bbox \[1, 2, 3\]; expected"),
        (changed(["annotations", 0, "bbox", 0], float("nan")), "expected .x, y, width, height"),
        (changed(["annotations", 0, "image_id"], 8), "of image 8, which is not among 'images'"),
        (changed(["annotations", 0, "image_id"], [8]), "of image .8., which is not among"),
        (changed(["annotations", 2, "category_id"], 4), "3 is of category 4; there are 3, 18, 90"),
        (changed(["annotations", 0, "area"], "big"), "1 has the area 'big'"),
        (changed(["images", 0, "file_name"], ...), "image 0 has no 'file_name'"),
        (changed(["images", 0, "id"], 7), "two images of id 7"),
        (changed(["images", 0, "file_name"], "c.png"), "image 'c.png' twice, ids 42 and 1099"),
        (changed(["images", 0, "file_name"], "../a.png"), "names the image '../a.png'; expected"),
        (changed(["images", 0, "file_name"], "/a.png"), "names the image '/a.png'"),
        (changed(["images", 0, "width"], "wide"), "has width 'wide'"),
        (changed(["categories", 0, "id"], 3), "two categories of id 3"),
        (changed(["categories", 0, "name"], "dog"), "two categories of id 18 or name 'dog'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_coco_file(coco_root, content, message):
    with pytest.raises(DataError, match=message):
        open_split(coco_data(coco_root, content), "train")


def test_all_that_is_wrong_is_counted(coco_root):
    content = coco_content()
    for annotation in content["annotations"]:
        del annotation["bbox"]
    with pytest.raises(DataError, match="And 2 more: `jaxvision data check` lists them") as error:
        open_split(coco_data(coco_root, content), "train")
    assert len(error.value.problems) == 3


def test_boxes_without_area_or_outside_are_left_out_and_said(coco_root, capsys):
    content = coco_content()
    for index, box in enumerate(([5, 5, 0, 9], [5, 5, 3, -1], [40, 3, 9, 9], [-9, 3, 9, 9])):
        one = {"id": 10 + index, "image_id": 42, "category_id": 3, "bbox": box}
        content["annotations"].append(one)
    data = coco_data(coco_root, content)
    source = open_split(data, "train").source
    assert len(source[0]["boxes"]) == 1
    assert [len(source.faults[kind]) for kind in (NO_AREA, OUTSIDE)] == [2, 2]
    assert source.faults[OUTSIDE][0].endswith("a.png: car (40, 3, 49, 12)")
    open_split(data, "test")
    said = capsys.readouterr().err
    assert said.count("2 boxes without area and 2 boxes outside of their image, of 7 boxes") == 1


def test_images_that_lie_elsewhere(coco_root):
    options = {"annotations": "annotations.json", "images": "photos"}
    with pytest.raises(
        DataError,
        match=rf"3 of 3 images .* first .*photos/a.png. a.png is in {coco_root}/images: set",
    ):
        open_split(coco_data(coco_root, options=options), "train")
    for name in ("a.png", "sub/b.png"):
        (coco_root / "images" / name).unlink()
    data = coco_data(coco_root)
    with pytest.raises(DataError, match=r"2 of 3 images .* No folder near has it; set data.dir"):
        open_split(data, "train")
    data.on_corrupt = "skip"
    out = batch(data, count=3)
    assert out["valid"].tolist() == [False, False, True]


def test_images_of_another_size_than_annotated(coco_root):
    draw(coco_root / "images" / "a.png", (80, 60))
    with pytest.raises(
        UserError, match=r"is 80x60 pixels, its boxes are of 40x30.*check_sizes=False"
    ):
        batch(coco_data(coco_root))
    options = {"annotations": "annotations.json", "images": "images", "check_sizes": False}
    with pytest.raises(UserError, match=r"object 0 has run lengths of 40x30 pixels, the image has"):
        batch(coco_data(coco_root, options=options))
    data = coco_data(coco_root, changed(["annotations", 1, "segmentation"], None), options=options)
    assert batch(data)["boxes"][0, 0, 2] == 8.5 * 16 / 80


def test_coco_of_real_data(shared_data):
    root = shared_data / "coco_mini_val"
    options = {"annotations": "annotations/instances_{split}.json", "images": "{split}"}
    data = config("coco", root, options=options, train="val2017", test="val2017")
    source = open_split(data, "val2017").source
    assert (len(source), len(source.class_names)) == (79, 80)
    assert source.facts.category_ids[-1] == 90
    assert len(source.rows["boxes"]) == 624
    crowds = source.rows["box_area"][source.rows["box_crowd"]]
    assert sorted(crowds)[:3] == [5517, 9476, 31275]
    content = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    by_image = {}
    for one in content["annotations"]:
        by_image.setdefault(one["image_id"], []).append(one)
    for index in range(79):
        theirs = by_image.get(source.image_id(index), [])
        ours = source.rows["boxes"][source.starts[index] : source.starts[index + 1]]
        boxes = np.array([one["bbox"] for one in theirs]).reshape(-1, 4)
        np.testing.assert_allclose(ours[:, 2:] - ours[:, :2], boxes[:, 2:], atol=1e-4)
        assert source.name(index).endswith(f"{source.image_id(index):012}.jpg")


# -- VOC ------------------------------------------------------------------------------------------


def xml(*objects, size=(40, 30), start=""):
    parts = [
        f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{x0}</xmin>"
        f"<ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, hard, x0, y0, x1, y1 in objects
    ]
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return (
        f"{start}<annotation><filename>/etc/passwd</filename>{sides}{''.join(parts)}</annotation>"
    )


VOC = {
    "a": xml(("rbc", 0, 1, 1, 40, 30), ("wbc", 1, 11, 12, 20, "22.0")),
    "b.1": xml(("rbc", 0, 7, 7, 7, 7), ("wbc", 0, 2, 2, 3, 3), ("wbc", 0, 60, 2, 70, 3)),
    "c": xml(size=None),
}


@pytest.fixture
def voc_root(root):
    for stem, text in VOC.items():
        draw(root / "JPEGImages" / f"{stem}.{'png' if stem == 'a' else 'jpg'}")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{stem}.xml").write_text(text)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("c\nb.1\na\n")
    (lists / "test.txt").write_text("a\n\n")
    return root


def test_voc(voc_root, capsys):
    data = config("voc", voc_root)
    source = open_split(data, "train")
    assert source.class_names == ("rbc", "wbc")
    assert [image_id(source, i) for i in range(3)] == ["c", "b.1", "a"]
    both = record(data, index=2)
    # Pixels are counted from 1, and the last one belongs to the box.
    assert both["boxes"].tolist() == [[0, 0, 40, 30], [10, 11, 20, 22]]
    assert both["box_crowd"].tolist() == [False, True]
    assert both["annotated_size"].tolist() == [30, 40]
    assert record(data, index=0)["boxes"].shape == (0, 4)
    # One pixel as written has no area, whatever the convention makes of it.
    assert record(data, index=1)["boxes"].tolist() == [[1, 1, 3, 3]]
    assert "1 boxes without area and 1 boxes outside" in capsys.readouterr().err
    data.options = {"from_one": False}
    assert record(data, index=2)["boxes"][1].tolist() == [11, 12, 20, 22]
    assert batch(config("voc", voc_root), count=1)["box_valid"].sum() == 2
    assert open_split(data, "test").class_names == ("rbc", "wbc")


def test_voc_without_lists_is_split_by_names(voc_root):
    for path in (voc_root / "ImageSets" / "Main").iterdir():
        path.unlink()
    data = config("voc", voc_root, options={"images": "JPEGImages"}, train="train", test="train")
    source = open_split(data, "train")
    assert sorted(os.path.basename(source.name(i)) for i in range(3)) == [
        "a.png",
        "b.1.jpg",
        "c.jpg",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", "a.xml is no valid XML: no element found"),
        (b"\xff\xfe<", "no valid XML"),
        ('<?xml version="1.0" encoding="utf-99"?><a/>', "no valid XML: unknown encoding"),
        ("<annotation><object><name>rbc</name></object></annotation>", "has no <bndbox><xmin>"),
        (xml(("", 0, 1, 1, 2, 2)), "a.xml: an <object> has no <name>"),
        (xml(("rbc", 0, "one", 1, 2, 2)), "<bndbox><xmin> is 'one'; expected a number"),
        (xml(("rbc", 0, "nan", 1, 2, 2)), "is 'nan'; expected a number"),
        (xml(start="<!DOCTYPE a SYSTEM 'file:///etc/passwd'>"), r"declares a document type \(a\)"),
        (
            "<!DOCTYPE b [<!ENTITY a 'aaaaaaaaaa'>"
            + "".join(f"<!ENTITY a{i} '{f'&a{i - 1 or str()};' * 10}'>" for i in range(1, 12))
            + "]><b>&a11;</b>",
            "a.xml is refused: it declares a document type",
        ),
        (" " * (16 * 2**20 + 1), "more than 16777216 bytes"),
    ],
)
def test_what_is_wrong_with_a_voc_file(voc_root, text, message):
    path = voc_root / "Annotations" / "a.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        open_split(config("voc", voc_root), "train")


def test_what_is_wrong_with_a_voc_folder(voc_root):
    data = config("voc", voc_root)
    with pytest.raises(UserError, match=r"Unknown split in .* 'val'. Valid: test, train"):
        open_split(data, "val")
    with pytest.raises(UserError, match=rf"No folder .* Did you mean data.dir={voc_root}\?"):
        open_split(config("voc", voc_root.parent), "train")
    lists = voc_root / "ImageSets" / "Main"
    for text, message in (
        ("a\na\n", "lists 'a' twice"),
        ("../a\n", "lists '../a'; expected the name of an image"),
        ("/a\n", "lists '/a'"),
        ("\n", "lists no image"),
        (b"\xff", "is not UTF-8"),
        ("d\n", "Cannot read the annotation .*d.xml: No such file"),
    ):
        (lists / "train.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(DataError, match=message):
            open_split(data, "train")
    (lists / "train.txt").write_text("c\n")
    with pytest.raises(DataError, match=r"No file in .* of data.train has an object"):
        open_split(data, "train")
    with pytest.raises(
        DataError, match=r"class of 1 objects \(first in a.xml\): 'rbc'. Did you mean 'rbcs'"
    ):
        open_split(config("voc", voc_root, classes=("rbcs", "wbc")), "test")
    (lists / "train.txt").write_text("a\n")
    (voc_root / "other").mkdir()
    (voc_root / "JPEGImages" / "a.png").rename(voc_root / "other" / "a.jpg")
    with pytest.raises(
        DataError, match=r"1 of 1 images .* first .*JPEGImages/a.jpg. a.jpg is in .*other: set"
    ):
        open_split(data, "test")


def test_voc_of_real_data(shared_data, capsys):
    data = config("voc", shared_data / "bccd")
    sizes = {split: len(open_split(data, split)) for split in ("train", "val", "test", "trainval")}
    assert sizes == {"train": 205, "val": 87, "test": 72, "trainval": 292}
    source = open_split(data, "trainval+test")
    assert source.class_names == ("Platelets", "RBC", "WBC")
    boxes = [part.source.rows["boxes"] for part in source.parts]
    assert sum(map(len, boxes)) == 4888 - 2
    assert min(b.min() for b in boxes) == 0
    assert max(b[:, 2].max() for b in boxes) == 640
    assert capsys.readouterr().err.count("boxes without area") >= 1
    assert batch(data, count=4)["box_valid"].any(1).all()


# -- YOLO -----------------------------------------------------------------------------------------


def yolo_root(root, labels=None, images="images/{}", texts="labels/{}", names="data.yaml"):
    labels = labels or {"a": "1 0.5 0.5 0.5 0.2\n0 0.1 0.2 0.4 0.1\n\n", "b": None, "c": ""}
    for split in ("train", "test"):
        for stem, text in labels.items():
            draw(root / images.format(split) / f"{stem}.png")
            path = root / texts.format(split) / f"{stem}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                path.write_text(text)
    if names:
        (root / names).write_text("names: [cat, dog]\n" if "yaml" in names else "cat\ndog\n")
    return root


def by_name(data, split="train"):
    source = open_split(data, split)
    return {image_id(source, i): source[i] for i in range(len(source))}


@pytest.mark.parametrize(
    ("images", "texts"),
    [("images/{}", "labels/{}"), ("{}/images", "{}/labels"), ("{}", "{}")],
)
@pytest.mark.parametrize("names", ["data.yaml", "classes.txt", ""])
def test_yolo(tmp_path, capsys, images, texts, names):
    root = yolo_root(tmp_path, images=images, texts=texts, names=names)
    data = config("yolo", root, classes=() if names else ("cat", "dog"))
    found = by_name(data)
    assert open_split(data, "test").class_names == ("cat", "dog")
    np.testing.assert_allclose(
        found["a"]["relative_boxes"], [[0.25, 0.4, 0.75, 0.6], [-0.1, 0.15, 0.3, 0.25]], rtol=1e-6
    )
    assert found["a"]["box_label"].tolist() == [1, 0]
    assert [len(found[stem]["box_label"]) for stem in "bc"] == [0, 0]
    assert "1 of 3 images have no file in" in capsys.readouterr().err
    out = batch(data, count=3)
    row = int(out["box_valid"].any(1).argmax())
    np.testing.assert_allclose(out["boxes"][row, 1], [0, 2.4, 4.8, 4], rtol=1e-6)


def test_yolo_of_one_split_or_none(tmp_path):
    whole = yolo_root(tmp_path / "whole", images="images", texts="labels")
    data = config("yolo", whole, train="train", test="train")
    assert set(by_name(data)) == {"a", "b", "c"}
    data.test = "test"  # by a hash of the names
    both = (
        [*by_name(data, "train"), *by_name(data, "test")]
        if len(by_name(data, "train")) < 3
        else "abc"
    )
    assert sorted(both) == ["a", "b", "c"]
    one = yolo_root(tmp_path / "one")
    for kind in ("images", "labels"):
        for path in (one / kind / "test").iterdir():
            path.unlink()
        (one / kind / "test").rmdir()
    data = config("yolo", one, train="train[:2]", test="train[2:]")
    assert len(open_split(data, data.train)) == 2
    assert len(open_split(data, data.test)) == 1
    # A folder of a split is never mixed with others by their names.
    with pytest.raises(UserError, match=r"Unknown split 'test'. Valid: train\. data.train, .* cut"):
        open_split(config("yolo", one), "test")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1 0.1 0.93", r"line 2 .* has 6 columns: the last is a confidence"),
        ("0 0.5 0.5 0.1", "has 4 columns; expected 5, `class cx cy w h`"),
        ("0 0.1 0.1 0.2 0.2 0.1 0.2", "has 7 columns: a polygon; expected a box"),
        ("0 0.1 0.1 0.2 0.2 0.1 0.2 0.2", "has 8 columns; expected 5"),
        ("cat 0.1 0.1 0.2 0.2", "holds what is no number"),
        ("0 nan 0.1 0.2 0.2", "not finite"),
        ("2 0.1 0.1 0.2 0.2", r"is of class 2; there are 2 \(0 to 1\)"),
        ("0.5 0.1 0.1 0.2 0.2", "is of class 0.5"),
        ("-1 0.1 0.1 0.2 0.2", "is of class -1"),
        ("0 320 240 64 48", "is in pixels; expected parts of the image's width and height"),
    ],
)
def test_what_is_wrong_with_a_line_of_yolo(tmp_path, line, message):
    root = yolo_root(tmp_path, {"a": f"0 0.5 0.5 0.1 0.1\n{line}\n"})
    with pytest.raises(DataError, match=message):
        open_split(config("yolo", root), "train")


def test_boxes_of_yolo_without_area_or_outside(tmp_path, capsys):
    lines = ["0 0.5 0.5 0 0.1", "0 1.2 0.5 0.3 0.1", "0 0.5 0.5 0.2 -0.1", "1 1 1 0.2 0.2"]
    root = yolo_root(tmp_path, {"a": "\n".join(lines)})
    source = open_split(config("yolo", root), "train").source
    assert source[0]["box_label"].tolist() == [1]
    assert [len(source.faults[kind]) for kind in (NO_AREA, OUTSIDE)] == [2, 1]
    assert "2 boxes without area and 1 boxes outside" in capsys.readouterr().err


def test_what_is_wrong_with_a_yolo_folder(root):
    with pytest.raises(UserError, match="No such data folder"):
        open_split(config("yolo", root / "no"), "train")
    yolo_root(root, names="")
    with pytest.raises(UserError, match=r"no names: give data.classes, or a file in"):
        open_split(config("yolo", root), "train")
    for text, message in (
        ("names: 3", "names no class"),
        ("names: []", "names no class"),
        ("nc: 2", "names no class"),
        ("names: [a, a]", "not all different"),
        ("names: {0: a, 2: b}", r"has the keys \[0, 2\]; expected 0, 1"),
        ("names: [a", "data.yaml cannot be read"),
        ("x: &a [1, 1]\nnames: [*a, *a]", "not all different texts"),
        ("names: !!python/object/apply:os.system ['true']", "data.yaml cannot be read"),
    ):
        (root / "data.yaml").write_text(text)
        with pytest.raises(DataError, match=message):
            open_split(config("yolo", root), "train")
    (root / "data.yaml").write_text("names: {1: dog, 0: cat}")
    assert open_split(config("yolo", root), "train").class_names == ("cat", "dog")
    with pytest.raises(UserError, match=r"No such file of class names: .*other.txt"):
        open_split(config("yolo", root, options={"names": "other.txt"}), "train")
    draw(root / "images" / "train" / "a.jpg")
    with pytest.raises(DataError, match=r"have the same labels, .*a.txt"):
        open_split(config("yolo", root), "train")
    (root / "images" / "train" / "a.jpg").unlink()
    (root / "labels" / "train").rename(root / "labels" / "trian")
    (root / "labels" / "train").mkdir()
    with pytest.raises(
        DataError, match=r"None of 3 images has labels, first .*. a.txt is in .*/labels/test: set"
    ):
        open_split(config("yolo", root), "train")


def test_yolo_of_real_data(shared_data):
    options = {"labels": "object_detection/labels/{split}"}
    data = config("yolo", shared_data / "coco128_val", options=options)
    source = open_split(data, "val2017").source
    assert (len(source), len(source.class_names), source.class_names[-1]) == (128, 80, "toothbrush")
    assert len(source.rows["box_label"]) == 898
    out = batch(data, "val2017", 4)
    assert (out["boxes"] <= 16).all()


# -- TFDS -----------------------------------------------------------------------------------------


class Objects(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
    """Objects as `coco` of the TFDS catalogue has them."""

    name = "objects"
    VERSION = tensorflow_datasets.core.Version("1.0.0")

    def _info(self):
        features = tensorflow_datasets.features
        each = {
            "bbox": features.BBoxFeature(),
            "label": features.ClassLabel(names=["cat", "dog"]),
            "area": np.int64,
            "is_crowd": np.bool_,
        }
        image = features.Image(shape=(None, None, 3))
        every = features.FeaturesDict({"image": image, "objects": features.Sequence(each)})
        return tensorflow_datasets.core.DatasetInfo(builder=self, features=every)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        box = tensorflow_datasets.features.BBox(ymin=0.2, xmin=0.25, ymax=0.6, xmax=1.0)
        one = {"bbox": box, "label": 1, "area": 77, "is_crowd": True}
        for count in (2, 0):
            image = io.BytesIO(encode_png(np.zeros((30, 40, 3), np.uint8)))
            yield count, {"image": image, "objects": [one] * count}


def test_objects_of_the_tfds_catalogue(tmp_path, monkeypatch):
    builder = Objects(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    module = importlib.import_module("jaxvision.data.sources.tfds")
    monkeypatch.setattr(module, "tfds_builder", lambda *_: builder)
    data = config("tfds", tmp_path, name="objects")
    assert open_split(data, "train").class_names == ("cat", "dog")
    out = batch(data, "train")
    row = int(out["box_valid"].any(1).argmax())
    assert out["box_valid"].sum(1).tolist() in ([2, 0], [0, 2])
    np.testing.assert_allclose(out["boxes"][row, 0], [4, 3.2, 16, 9.6], rtol=1e-6)
    assert (out["box_label"][row, 0], out["box_crowd"][row, 0]) == (1, True)
    np.testing.assert_allclose(out["box_area"][row, 0], 77 * 256 / 1200, rtol=1e-6)
