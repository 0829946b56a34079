"""`jaxvision data check` and `anchors`: what they find, draw and return."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxvision import cli
from jaxvision.commands import data as command
from jaxvision.data.annotations import KINDS
from jaxvision.data.check import _spread
from jaxvision.data.check import check as check_data
from jaxvision.errors import UserError
from jaxvision.tasks import default_config

CONFIG = """
from jaxvision.tasks import default_config


def get_config():
    config = default_config("{task}")
    config.data.source, config.data.dir = "{source}", "{root}"
    config.data.options = {options}
    config.data.classes = {classes}
    return config
"""


@pytest.fixture
def check(tmp_path, capsys):
    """A function that runs the command on a data set; gives its exit code and what it prints."""

    def run(
        root,
        source,
        *more,
        action="check",
        task="localization",
        options=None,
        classes=(),
        code=0,
    ):
        config = tmp_path / "config.py"
        config.write_text(
            CONFIG.format(
                task=task, source=source, root=root, options=options or {}, classes=classes
            )
        )
        if code:
            with pytest.raises(SystemExit) as end:
                cli.run(["data", action, "--config", str(config), *more])
            assert end.value.code == code
        else:
            cli.run(["data", action, "--config", str(config), *more])
        return capsys.readouterr().out

    return run


def draw(path, level, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


@pytest.fixture
def root(tmp_path):
    """Four images to train on and one to test on, with a box of either class each."""
    for index in range(5):
        split = "test" if index == 4 else "train"
        draw(
            tmp_path / "set" / "images" / split / f"{index}.png", 40 * index, (40, 20 + index // 4)
        )
        labels = tmp_path / "set" / "labels" / split / f"{index}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("0 0.5 0.5 0.5 0.5\n1 0.2 0.2 0.2 0.2\n")
    (tmp_path / "set" / "classes.txt").write_text("cat\ndog\n")
    return tmp_path / "set"


def test_sound_data(root, check, tmp_path):
    said = check(root, "yolo", "--output", str(tmp_path / "out"))
    assert said.splitlines() == [
        "train: 4 images",
        "  sizes: 40x20 (4)",
        "  of each class: cat 4, dog 4",
        "  in an image: 2 to 2",
        f"  Wrote {tmp_path}/out/train.png and .json",
        "test: 1 images",
        "  sizes: 40x21 (1)",
        "  of each class: cat 1, dog 1",
        "  in an image: 2 to 2",
        f"  Wrote {tmp_path}/out/test.png and .json",
        "Nothing is wrong.",
    ]
    assert json.loads((tmp_path / "out" / "train.json").read_text()) == {}
    with Image.open(tmp_path / "out" / "train.png") as image:
        picture = np.asarray(image)
    # A box around the middle half of 320 by 160 pixels, in the colour of the first class.
    red = (picture == [128, 0, 0]).all(-1)[:320, 4:324]
    rows, columns = np.nonzero(red)
    assert abs(rows.min() - 124) <= 1
    assert abs(rows.max() - 204) <= 1
    assert abs(columns.min() - 80) <= 1
    assert abs(columns.max() - 240) <= 1


def test_everything_that_is_wrong_is_found(root, check, tmp_path):
    images, labels = root / "images" / "train", root / "labels" / "train"
    (images / "1.png").write_bytes((images / "0.png").read_bytes())
    (root / "images" / "test" / "4.png").write_bytes((images / "2.png").read_bytes())
    (images / "3.png").write_bytes((images / "3.png").read_bytes()[:50])
    (labels / "0.txt").write_text(
        "0 0.5 0.5 0 0.5\n0 1.5 0.5 0.2 0.2\n" + "1 0.5 0.5 0.1 0.1\n" * 3
    )
    (labels / "2.txt").write_text("")
    more = ("--output", str(tmp_path / "out"), "--config.data.max_instances=2")
    said = check(root, "yolo", *more, code=1)
    assert "of each class: cat 1, dog 4" in said
    assert "in an image: 0 to 3, 1 images with none" in said
    for kind, names in {
        "boxes without area: 1": f"{images}/0.png: cat (0.5, 0.25, 0.5, 0.75)",
        "boxes outside of their image: 1": f"{images}/0.png: cat (1.4, 0.4, 1.6, 0.6)",
        "unreadable images: 1": f"Cannot read image {images}/3.png",
        "images with more objects than data.max_instances: 1": f"{images}/0.png: 1 more",
    }.items():
        assert f"  {kind}\n    {names}" in said
    assert f"/4.png, as {images}/2.png of 'train'" in said
    assert said.count("images that are there twice: 1") == 2
    assert said.endswith("6 faults.\n")
    assert json.loads((tmp_path / "out" / "train.json").read_text()).keys() == {
        "boxes without area", "boxes outside of their image", "unreadable images",
        "images with more objects than data.max_instances", "images that are there twice",
    }  # fmt: skip
    only = check(root, "yolo", "--split", "test")
    assert "Nothing is wrong" in only


def test_annotations_that_cannot_be_used_are_all_listed(root, check):
    labels = root / "labels" / "train"
    (labels / "0.txt").write_text("0 0.5 0.5 0.1 0.1 0.9\n7 0.5 0.5 0.1 0.1\n")
    (labels / "1.txt").write_text("0 0.5 0.5\n")
    said = check(root, "yolo", code=1)
    assert "wrong annotations: 3\n" in said
    for text in ("has 6 columns", "is of class 7", "has 3 columns"):
        assert text in said
    assert "test: 1 images" in said  # which is read all the same
    draw(root / "images" / "test" / "5.png", 9)  # an image that was made smaller
    content = {
        "images": [{"id": 1, "file_name": "5.png", "width": 80, "height": 60}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
    }
    (root / "a.json").write_text(json.dumps(content))
    options = {"annotations": "../../a.json"}
    said = check(root / "images" / "test", "coco", "--split", "any", options=options, code=1)
    assert "5.png: the image is 40x30 pixels, its boxes are of 80x60" in said


def test_other_annotations(root, check, tmp_path):
    for level, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        draw(tmp_path / "classes" / place / "photo.png", 50 * level)
    said = check(tmp_path / "classes", "folder", "--split", "train", task="classification")
    assert "of each class: a 1, b 1" in said
    assert "in an image" not in said
    for split in ("train", "test"):
        for index in range(2):
            draw(tmp_path / "masks" / split / f"{index}.png", 7 * index + (split == "test"))
            mask = np.full((30, 40), 3 * index, np.uint8)
            mask[:5] = 1
            (tmp_path / "masks" / f"{split}annot").mkdir(exist_ok=True)
            Image.fromarray(mask).save(tmp_path / "masks" / f"{split}annot" / f"{index}.png")
    folder = str(tmp_path / "out")
    said = check(
        tmp_path / "masks",
        "masks",
        "--output",
        folder,
        task="segmentation",
        classes=("a", "b"),
        code=1,
    )
    assert "of each class: a 1, b 1" in said
    assert "1.png has value 3, but there are 2 classes" in said
    assert (tmp_path / "out" / "train.png").is_file()
    said = check(tmp_path / "masks", "masks", "--split", "train", classes=("a", "b"), code=1)
    assert "images without any annotation: 2" in said


def test_what_is_no_fault_of_the_data(root, check, tmp_path):
    with pytest.raises(UserError, match="No such data folder"):
        check(root / "no", "yolo")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output names a folder"):
        check(root, "yolo", "--output", str(tmp_path / "file"))


def test_records_are_taken_from_all_over():
    assert list(_spread(0)) == []
    assert list(_spread(1)) == [0]
    for count in (2, 5, 8, 13):
        order = list(_spread(count))
        assert sorted(order) == list(range(count))
    assert list(_spread(8))[:4] == [0, 4, 2, 6]


def test_anchors_are_the_shapes_of_boxes(root, check):
    said = check(root, "yolo", "--count", "2", action="anchors")
    assert said.splitlines() == [
        "train: 8 boxes, in pixels of the images that the network sees",
        "  anchors in pixels: ((8.0, 4.0), (20.0, 10.0))",
        "  mean IoU of a box with the best of them: 1.000",
        "  anchors in shares of the image: ((0.2000, 0.2000), (0.5000, 0.5000))",
        "  mean IoU of a box with the best of them: 1.000",
    ]
    letterbox = "--config.data.eval_transforms=[{'name': 'letterbox', 'size': 80}]"
    said = check(root, "yolo", "--count", "1", "--split", "test", letterbox, action="anchors")
    assert "test: 2 boxes" in said
    assert "anchors in pixels: ((28.0, 14.7))" in said  # of 80x42
    assert "anchors in shares of the image: ((0.3500, 0.1837))" in said  # as 14.7 / 80


def test_anchors_of_what_has_no_boxes(root, check):
    with pytest.raises(UserError, match="k=3 clusters of 2 different shapes"):
        check(root, "yolo", "--count", "3", action="anchors")
    for path in (root / "labels" / "train").iterdir():
        path.write_text("")
    with pytest.raises(UserError, match="There is no box in 'train'"):
        check(root, "yolo", action="anchors")


def told(root, captions):
    """Photographs with a text file beside each, where it has captions."""
    for index, text in enumerate(captions):
        draw(root / f"{index}.png", 20 * index)
        if text is not None:
            (root / f"{index}.txt").write_text(text, encoding="utf-8")
    data = default_config().data
    data.source, data.dir, data.test = "captions", str(root), "train"
    return data


def test_captions_are_counted_and_shown(tmp_path):
    data = told(tmp_path, ["A dog.\nThe dog!\n", "A cat, 🐶", "Собака бежит", "a a a a a"])
    data.max_tokens = 6
    (report,) = check_data(data, ["train"], (KINDS["caption"],))
    assert command.lines(report) == [
        "train: 4 images",
        "  sizes: 40x30 (4)",
        "  captions: 5, 1 to 2 an image; 13 words, 6 of them different",
        "  captions of more tokens than data.max_tokens=6, which are cut: 1",
    ]
    picture = command.annotated(report, data, (KINDS["caption"],))
    shown = command.annotated(report, data, ())
    assert (picture < 100).sum() > (shown < 100).sum()  # the letters of what is said
    data.max_tokens = 7
    (report,) = check_data(data, ["train"], (KINDS["caption"],))
    assert report.cut == 0
    data.tokenizer = "bpe"
    data.vocabulary_size = 260
    (report,) = check_data(data, ["train"], (KINDS["caption"],))
    assert report.cut == 5  # of bytes


def test_faulty_captions_are_counted(tmp_path):
    data = told(tmp_path, ["a dog", None, "", " \n\n", "x" * 600])
    (report,) = check_data(data, ["train"], (KINDS["caption"],))
    counts = {kind: len(texts) for kind, texts in report.faults.items()}
    assert counts == {
        "images without a caption": 3,
        "images with a caption of more bytes than data.max_caption": 1,
    }
    assert (report.captions, report.cut) == ({1: 1}, None)
    data.tokenizer = "no.json"
    with pytest.raises(UserError, match=r"no\.json"):
        list(check_data(data, ["train"], (KINDS["caption"],)))
