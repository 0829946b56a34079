"""Captions from files: Flickr8k and Flickr30k, text files beside images, COCO's JSON."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxvision.data.sources import open_split
from jaxvision.data.sources.captions import read_table
from jaxvision.data.sources.splits import captions_of
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.tasks import default_config

TABLES = {
    "csv": 'image,caption\nb.jpg,"A ""big"" dog , red"\nb.jpg,Two, three\na.jpg,Ein Hund 🐶\n',
    "bare": 'b.jpg,"A ""big"" dog , red"\r\nb.jpg,Two, three\r\n\r\na.jpg,Ein Hund 🐶\r\n',
    "token": 'b.jpg#0\tA "big" dog , red\nb.jpg#1\tTwo, three \na.jpg#0\tEin Hund 🐶\n',
    "results": "image_name| comment_number| comment\n"
    'b.jpg| 0| A "big" dog , red\nb.jpg| 1   Two, three\na.jpg| 0| Ein Hund 🐶',
}
READ = {"b.jpg": ['A "big" dog , red', "Two, three"], "a.jpg": ["Ein Hund 🐶"]}


def configured(root, train="train", test="train", **options):
    data = default_config().data
    data.source, data.dir, data.train, data.test = "captions", str(root), train, test
    data.options = options
    return data


def draw(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(path)


def batch_of(data, train):
    stream = open_stream(data, "train", seed=0, train=train, annotations=("caption",))
    return stream.batch(range(2))


def names_of(source):
    return [source.name(index).rpartition("/")[2] for index in range(len(source))]


# -- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", TABLES)
def test_tables(tmp_path, form):
    path = tmp_path / "captions.txt"
    path.write_bytes(b"\xef\xbb\xbf" * (form == "csv") + TABLES[form].encode())
    assert read_table(path) == READ
    draw(*(tmp_path / "images" / name for name in ("a.jpg", "b.jpg", "c.jpg")))
    source = open_split(configured(tmp_path, file="captions.txt"), "train")
    assert names_of(source) == ["a.jpg", "b.jpg"]  # by name; nothing is said of c.jpg
    assert list(captions_of(source)) == [tuple(READ["a.jpg"]), tuple(READ["b.jpg"])]
    record = source[1]
    assert record["captions"] == tuple(READ["b.jpg"])
    assert record["image"][:2] == b"\xff\xd8"
    assert source.image_id(1) == "b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with ''"),
        ("a dog runs\nthe dog\n", "begins with 'a dog runs', where no image is named; a line is i"),
        ("image,caption\n1000,a dog\n", "begins with 'image,caption', where no image is named"),
        ("a.jpg,A dog\nand more\n", "line 2: 'and more' has no ','; a line is image,caption"),
        (b"a.jpg,\xff\xfe\n", "Cannot read .*captions.txt.*utf-8"),
        ("x/../../a.jpg,a dog", r"names the image 'x/../../a.jpg'; expected one below .*images"),
    ],
)
def test_what_is_no_table(tmp_path, text, message):
    path = tmp_path / "captions.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    draw(tmp_path / "images" / "a.jpg")
    with pytest.raises(UserError, match=message):
        open_split(configured(tmp_path, file="captions.txt"), "train")
    with pytest.raises(UserError, match=r"table of captions in .*'caption.txt'.*'captions.txt'"):
        open_split(configured(tmp_path, file="caption.txt"), "train")
    with pytest.raises(UserError, match="No such data folder"):
        open_split(configured(tmp_path / "no", file="captions.txt"), "train")


def test_captions_whose_image_is_missing(tmp_path, capsys):
    (tmp_path / "captions.txt").write_text("a.jpg,one\nb.jpg,two\nc.jpg,three\nd.jpg,\n")
    draw(tmp_path / "photos" / "a.jpg", tmp_path / "photos" / "b.jpg")
    options = {"file": "captions.txt", "images": "photos"}
    with pytest.raises(
        UserError, match=r"2 of 4 images .* first .*c.jpg.*skip_missing=True leaves"
    ):
        open_split(configured(tmp_path, **options), "train")
    source = open_split(configured(tmp_path, **options, skip_missing=True), "train")
    assert names_of(source) == ["a.jpg", "b.jpg"]
    assert "2 of 4 images" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"4 of 4 images .*a.jpg is in .*photos: set data.dir, or"):
        open_split(configured(tmp_path, file="captions.txt", skip_missing=True), "train")


def test_lists_of_the_splits(tmp_path):
    lines = [f"{name}.jpg#{n}\t{name} {n}" for name in "edcba" for n in (0, 1)]
    (tmp_path / "Flickr8k.token.txt").write_text("\n".join(lines))
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("c.jpg\na.jpg\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("b\n")
    draw(*(tmp_path / "images" / f"{name}.jpg" for name in "abcde"))
    options = {"file": "Flickr8k.token.txt", "lists": "Flickr_8k.{split}Images.txt"}
    data = configured(tmp_path, **options)
    assert names_of(open_split(data, "train")) == ["a.jpg", "c.jpg"]
    assert names_of(open_split(data, "dev")) == ["b.jpg"]
    assert open_split(data, "dev")[0]["captions"] == ("b 0", "b 1")
    with pytest.raises(UserError, match=r"'Flickr_8k.tstImages.txt'. Did you mean 'Flickr_8k"):
        open_split(data, "tst")
    named = {"train": "Flickr_8k.trainImages.txt", "test": "Flickr_8k.testImages.txt"}
    data = configured(tmp_path, **{**options, "lists": named})
    assert len(open_split(data, "train[:1]")) == 1
    with pytest.raises(UserError, match=r"split of data.options.lists: 'tests'.*'test'"):
        open_split(data, "tests")
    (tmp_path / "Flickr_8k.testImages.txt").write_text("e.jpg\nf.jpg\n")
    with pytest.raises(UserError, match=r"testImages.txt lists f.jpg, which has no caption in"):
        open_split(data, "test")
    skipping = configured(tmp_path, **{**options, "lists": named}, skip_missing=True)
    assert names_of(open_split(skipping, "test")) == ["e.jpg"]


def test_without_lists_all_images_are_one_split_or_two(tmp_path):
    names = [f"{number:02}.jpg" for number in range(30)]
    (tmp_path / "captions.txt").write_text("".join(f"{name},said\n" for name in names[::-1]))
    draw(*(tmp_path / "images" / name for name in names))
    data = configured(tmp_path, "train[:20]", "train[20:]", file="captions.txt")
    assert names_of(open_split(data, "train[:20]")) == names[:20]
    assert names_of(open_split(data, "train[20:]")) == names[20:]
    data = configured(tmp_path, "train", "test", file="captions.txt")
    parts = [names_of(open_split(data, split)) for split in ("train", "test")]
    assert sorted(parts[0] + parts[1]) == names
    assert 0 < len(parts[1]) < len(parts[0])
    with pytest.raises(UserError, match=r"no folder 'dev'\. Without folders of splits"):
        open_split(data, "dev")
    data = configured(tmp_path, "all", "all", file="captions.txt")
    with pytest.raises(UserError, match="Cannot read split 'all'"):  # TFDS has a meaning for it
        open_split(data, "all")


# -- text files beside images ---------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "images"])
def test_a_text_file_beside_each_image(tmp_path, place):
    folder = tmp_path / place
    draw(folder / "b.png", folder / "a.jpg", folder / "more" / "c.jpg")
    (folder / "a.txt").write_text("one \n\n two, three\n", encoding="utf-8")
    (folder / "b.txt").write_text("\ufeffEin Hund 🐶", encoding="utf-8")
    (folder / "more" / "c.txt").write_text("кот")
    source = open_split(configured(tmp_path), "train")
    assert names_of(source) == ["a.jpg", "b.png", "c.jpg"]
    assert list(captions_of(source)) == [("one", "two, three"), ("Ein Hund 🐶",), ("кот",)]


def test_folders_of_the_splits(tmp_path):
    for split in ("train", "test"):
        draw(tmp_path / split / "a.jpg")
        (tmp_path / split / "a.txt").write_text(split)
    data = configured(tmp_path, "train", "test")
    assert [open_split(data, split)[0]["captions"] for split in ("train", "test")] == [
        ("train",),
        ("test",),
    ]
    with pytest.raises(UserError, match=r"folder of images in .*'tests'.*'test'"):
        open_split(data, "tests")


def test_images_without_a_caption_are_met_at_the_door(tmp_path):
    draw(tmp_path / "a.jpg", tmp_path / "b.jpg")
    with pytest.raises(
        UserError, match=r"has a caption: expected a.txt beside a.jpg.*options.file"
    ):
        open_split(configured(tmp_path), "train")
    (tmp_path / "a.txt").write_text("a dog")
    (tmp_path / "b.txt").write_text(" \n")
    for train in (True, False):
        with pytest.raises(UserError, match=r"b.jpg has no caption"):
            batch_of(configured(tmp_path), train)
    source = open_split(configured(tmp_path, skip_missing=True), "train")
    assert names_of(source) == ["a.jpg"]
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"Cannot read .*a.txt"):
        open_split(configured(tmp_path), "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="No image in"):
        open_split(configured(tmp_path / "empty"), "train")


# -- COCO -----------------------------------------------------------------------------------------


def coco(root, **changes):
    content = {
        "images": [{"id": 7, "file_name": "b.jpg"}, {"id": 3, "file_name": "a.jpg"}],
        "annotations": [
            {"image_id": 3, "id": 12, "caption": "second "},
            {"image_id": 7, "id": 5, "caption": "a cat"},
            {"image_id": 3, "id": 2, "caption": "first"},
        ],
    }
    (root / "captions_train.json").write_text(json.dumps({**content, **changes}))
    draw(root / "train" / "a.jpg", root / "train" / "b.jpg")
    data = configured(root, annotations="captions_{split}.json", images="{split}")
    data.source = "coco"
    return data


def test_captions_of_coco(tmp_path):
    source = open_split(coco(tmp_path), "train")
    assert names_of(source) == ["b.jpg", "a.jpg"]
    assert [source[1]["captions"], source.image_id(1)] == [("first", "second "), 3]
    assert list(captions_of(open_split(coco(tmp_path), "train[1:]"))) == [("first", "second ")]
    assert batch_of(coco(tmp_path), True)["caption_tokens"].shape == (2, 5, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [{"image_id": 9, "caption": "a"}]}, "annotation 0 is of image 9, which"),
        (
            {"annotations": [{"image_id": 3, "id": 4, "caption": 5}]},
            "4 has the caption 5; expected",
        ),
        ({"annotations": [{"caption": "a"}]}, "annotation 0 has no 'image_id'"),
        ({"annotations": [{"image_id": 3, "id": "x", "caption": "a"}]}, "'x' has an id that is no"),
        ({"annotations": []}, "no list 'categories'.*one of captions"),
        ({"annotations": None}, "no list 'annotations'"),
        ({"images": []}, "has no image: its 'images' is empty"),
        (
            {"images": [{"id": 3, "file_name": "c.jpg"}, {"id": 7, "file_name": "b.jpg"}]},
            "1 of 2 i",
        ),
    ],
)
def test_wrong_captions_of_coco(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        open_split(coco(tmp_path, **changes), "train")


def test_an_image_of_coco_without_captions_is_named_when_it_is_read(tmp_path):
    data = coco(tmp_path, annotations=[{"image_id": 3, "caption": "a dog"}])
    for train in (True, False):
        with pytest.raises(UserError, match=r"b.jpg has no caption"):
            batch_of(data, train)


# -- real data ------------------------------------------------------------------------------------


def test_flickr8k(shared_data):
    root = shared_data / "flickr8k_small"
    if not root.is_dir():
        pytest.skip("needs flickr8k_small")
    specs = ("train[:750]", "train[750:825]", "train[825:]")
    data = configured(root, specs[0], specs[2], file="captions_1000.txt", skip_missing=True)
    data.validation = specs[1]
    train, validation, test = (open_split(data, spec) for spec in specs)
    assert [len(train), len(validation), len(test)] == [750, 75, 75]
    names = sorted(path.name for path in (root / "images").iterdir())
    assert names_of(train) + names_of(validation) + names_of(test) == names
    assert {len(texts) for texts in captions_of(train)} == {5}
    assert train[0]["captions"][1] == "A girl going into a wooden building ."
    assert not any('"' in text[:1] for texts in captions_of(train) for text in texts)
    with pytest.raises(UserError, match=r"100 of 1000 images .* are missing"):
        open_split(configured(root, file="captions_1000.txt"), "train")
    data.eval_transforms = ({"name": "resize", "size": 8},)
    stream = open_stream(data, specs[0], seed=0, train=False, annotations=("caption",))
    assert stream.batch(range(2))["caption_valid"].all()
    data.min_count = 2
    learned = open_stream(data, specs[0], seed=0, train=True, annotations=("caption",))
    assert 1000 < learned.settings.tokenizer.size < 2500


def test_coco(shared_data):
    root = shared_data / "coco_mini_val"
    if not root.is_dir():
        pytest.skip("needs coco_mini_val")
    data = configured(root, annotations="annotations/captions_{split}.json", images="{split}")
    data.source = "coco"
    source = open_split(data, "val2017")
    assert len(source) == 79
    assert {len(texts) for texts in captions_of(source)} == {5}
    stored = json.loads((root / "annotations" / "captions_val2017.json").read_text())
    first = [one for one in stored["annotations"] if one["image_id"] == source.image_id(0)]
    assert list(source[0]["captions"]) == [
        one["caption"] for one in sorted(first, key=lambda one: one["id"])
    ]
    assert np.frombuffer(source[0]["image"], np.uint8)[:2].tolist() == [0xFF, 0xD8]
