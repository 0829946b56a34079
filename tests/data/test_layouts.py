"""How users name and lay out their folders: what is found and what is left out, and the splits."""

import os

import numpy as np
import pytest
from PIL import Image

from jaxvision import runs
from jaxvision.data import notices
from jaxvision.data.codecs import encode_png
from jaxvision.data.sources import image_folder, images_below, mask_folder, open_split
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.tasks import default_config

IMAGE = encode_png(np.full((6, 8, 3), 9, np.uint8))
MASK = encode_png(np.arange(48, dtype=np.uint8).reshape(6, 8) % 2)


def write(path, data=IMAGE):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def config(source, root, **keys):
    data = default_config().data
    data.source, data.dir = source, str(root)
    for key, value in keys.items():
        data[key] = value
    return data


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(notices, "_said", set())


def files(source):
    return {source.name(i) for i in range(len(source))}


# -- one walk --------------------------------------------------------------------------------------


def test_training_and_prediction_find_the_same_files(tmp_path):
    root = tmp_path / "data" / "train"
    kept = [write(root / "cat" / name) for name in ("a.PNG", "deep/er/b.jpg", "c.tiff")]
    for name in (".d.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/a.png", "@eaDir/a.png"):
        write(root / "cat" / name)
    write(root / "cat" / "notes.txt")
    write(tmp_path / "elsewhere" / "e.png")
    (root / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "back").symlink_to(root)
    (root / "cat" / "itself").symlink_to(root / "cat")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    kept.append(root / "cat" / "linked" / "e.png")
    expected = sorted(map(str, kept))
    assert [str(p) for p in images_below(root)] == expected
    assert [str(p) for p in runs.image_files([str(root)])] == expected
    kept.append(write(root / "dog" / "f.png"))  # and no cat, although the link leads there
    expected = sorted(map(str, kept))
    assert sorted(files(image_folder(root.parent, "train"))) == expected


def test_a_folder_that_is_linked_twice_is_read_twice(tmp_path):
    write(tmp_path / "shared" / "a.png")
    for name in ("one", "two"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(tmp_path / "shared")
    assert len(images_below(tmp_path / "data")) == 2


def test_links_that_lead_nowhere_are_unreadable_files(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    assert images_below(tmp_path) == [tmp_path / "a.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_folders_that_cannot_be_read(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(UserError, match=r"Cannot read the folder .*closed"):
        images_below(tmp_path)


def test_empty_and_foreign_folders_are_no_classes(tmp_path):
    for split in ("train", "test"):
        for name in ("cat/a.png", "dog/b.png", "__MACOSX/cat/._a.png", ".git/x.png"):
            write(tmp_path / split / name)
        (tmp_path / split / "empty" / "er").mkdir(parents=True)
        write(tmp_path / split / "notes" / "readme.txt")
    data = config("folder", tmp_path)
    assert open_split(data, "train").class_names == ("cat", "dog")
    (tmp_path / "test" / "fish").mkdir()
    assert len(open_split(data, "test")) == 2


# -- folders without splits ------------------------------------------------------------------------


@pytest.fixture
def classes(tmp_path):
    for name in ("cat", "dog"):
        for i in range(50):
            write(tmp_path / name / f"{i}.png")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_class_folders_alone_are_split_by_their_files_names(classes, capsys):
    data = config("folder", classes)
    train, test = (files(open_split(data, split)) for split in ("train", "test"))
    assert len(train) + len(test) == 100
    assert not train & test
    assert 10 <= len(test) <= 30
    assert open_split(data, "test").class_names == ("cat", "dog")
    said = capsys.readouterr().err
    assert said.count("has no folders of splits") == 1
    assert f"'train' ({len(train)} files) or in 'test' ({len(test)})" in said
    # More files, another place, another order of questions: a file stays where it is.
    for i in range(50, 90):
        write(classes / "dog" / f"{i}.png")
    assert test <= files(open_split(config("folder", classes), "test"))
    moved = classes.rename(classes.with_name("moved"))
    again = files(open_split(config("folder", moved), "test"))
    assert {name.replace("moved", classes.name) for name in again} >= test
    assert len(open_split(config("folder", moved), "train+test")) == 140


def test_cuts_of_folders_without_splits(classes):
    data = config("folder", classes, train="train[:75%]", validation="train[75%:]")
    parts = [files(open_split(data, split)) for split in (data.train, data.validation, data.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 100
    # Where nothing but one split is asked for, it has all files.
    data = config("folder", classes, train="train[:90%]", test="train[90%:]")
    assert len(open_split(data, "train")) == 100
    with pytest.raises(UserError, match=r"has no folder 'test'.*'train' \(80%\).*'test' \(20%\)"):
        open_split(data, "test")
    with pytest.raises(UserError, match="has no folder 'holdout'"):
        open_split(config("folder", classes, test="holdout"), "holdout")


def test_folders_that_are_no_data_set_of_classes(tmp_path):
    write(tmp_path / "flowers" / "train" / "rose" / "a.png")
    with pytest.raises(UserError, match=r"Did you mean data\.dir=.*/flowers\?"):
        open_split(config("folder", tmp_path), "train")
    data = config("folder", tmp_path / "flowers" / "train")
    with pytest.raises(UserError, match=r"two classes or more\. Folders with images: rose\."):
        open_split(data, "train")
    with pytest.raises(UserError, match=r"Unknown split .*'validation'"):
        open_split(config("folder", tmp_path / "flowers"), "validation")


@pytest.mark.parametrize("names", [("images", "masks"), ("images", "labels"), ("imgs", "masks")])
def test_images_and_masks_alone_are_split_by_their_files_names(tmp_path, names, capsys):
    for i in range(40):
        write(tmp_path / names[0] / f"{i}.jpg")
        write(tmp_path / names[1] / f"{i}.png", MASK)
    data = config("masks", tmp_path, classes=("a", "b"))
    train, test = (files(open_split(data, split)) for split in ("train", "test"))
    assert len(train | test) == 40
    assert not train & test
    assert "no folders of splits" in capsys.readouterr().err
    record = open_stream(data, "test", seed=0, train=False)[0]
    assert set(np.unique(record["segmentation"])) == {0, 1}
    # Named in the options they are the same two places, not every split all of them.
    data.options = {"images": names[0], "masks": names[1]}
    assert files(open_split(data, "test")) == test


def test_images_and_masks_with_splits_below_them(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / "images" / split / f"{split}.jpg")
        write(tmp_path / "masks" / split / f"{split}.png", MASK)
    data = config("masks", tmp_path, classes=("a", "b"))
    for split in ("train", "test"):
        (name,) = files(open_split(data, split))
        assert name.endswith(f"images/{split}/{split}.jpg")


def test_folders_that_are_no_data_set_of_masks(tmp_path):
    write(tmp_path / "photos" / "a.jpg")
    with pytest.raises(UserError, match=r"/images and .*/masks\..*data\.options.*there: photos\."):
        open_split(config("masks", tmp_path, classes=("a",)), "train")


# -- names of masks --------------------------------------------------------------------------------


def test_masks_named_after_the_whole_name_of_their_image(tmp_path):
    for i in range(3):
        write(tmp_path / "train" / "deep" / f"{i}.jpg")
        write(tmp_path / "trainannot" / "deep" / f"{i}.jpg.png", MASK)
    found = mask_folder(tmp_path, "train", ("a", "b"))
    assert [p.name + ".png" for p in found.images] == [p.name for p in found.masks]


def test_masks_beside_their_images(tmp_path):
    for i in range(3):
        write(tmp_path / "train" / f"{i}.jpg")
        write(tmp_path / "train" / f"{i}.jpg.png", MASK)
    found = mask_folder(tmp_path, "train", ("a", "b"), masks="{split}")
    assert sorted(p.name for p in found.images) == ["0.jpg", "1.jpg", "2.jpg"]
    assert [p.name + ".png" for p in found.images] == [p.name for p in found.masks]
    write(tmp_path / "train" / "3.jpg")
    with pytest.raises(UserError, match=r"1 of 4 images .* have no mask .*, first 3\.jpg"):
        mask_folder(tmp_path, "train", ("a", "b"), masks="{split}")


def test_two_masks_of_one_image(tmp_path):
    write(tmp_path / "train" / "a.jpg")
    for suffix in ("png", "tif"):
        write(tmp_path / "trainannot" / f"a.{suffix}", MASK)
        write(tmp_path / "trainannot" / f"nobodys.{suffix}", MASK)
    with pytest.raises(UserError, match=r"Two masks of one name: .*a\.png and a\.tif"):
        mask_folder(tmp_path, "train", ("a", "b"))


# -- photographs that a tag turns ------------------------------------------------------------------


def tagged(path, size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, (9, 9, 9)).save(path, exif=exif)


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
@pytest.mark.parametrize("size", [(8, 6), (6, 6)])
@pytest.mark.parametrize("drawn", ["as stored", "upright", "with the tag"])
def test_masks_of_turned_photographs(tmp_path, capsys, orientation, size, drawn):
    tagged(tmp_path / "train" / "a.jpg", size, orientation)
    quarter = orientation >= 5
    height, width = size if quarter and drawn == "upright" else size[::-1]
    mask = np.zeros((height, width), np.uint8)
    mask[0] = 1
    exif = Image.Exif()
    exif[0x0112] = orientation if drawn == "with the tag" else 1
    (tmp_path / "trainannot").mkdir()
    Image.fromarray(mask).save(tmp_path / "trainannot" / "a.png", exif=exif)
    stream = open_stream(
        config("masks", tmp_path, classes=("a", "b")), "train", seed=0, train=False
    )
    if drawn == "as stored" and quarter and size == (8, 6):
        message = rf"a\.jpg has EXIF orientation {orientation}.* 6x8 pixels; its mask is of 8x6"
        with pytest.raises(UserError, match=message):
            stream[0]
        return
    record = stream[0]
    assert record["segmentation"].shape == record["image"].shape[:2]
    said = capsys.readouterr().err
    unclear = drawn != "with the tag" and (orientation == 3 or size == (6, 6))
    assert said.count("a.jpg is turned by its EXIF orientation") == unclear
    if drawn == "with the tag":
        row, column = {3: (-1, slice(None)), 5: (slice(None), 0), 6: (slice(None), -1)}.get(
            orientation, (slice(None), 0)
        )
        assert (record["segmentation"][row, column] == 1).all()
        assert record["segmentation"].sum() == width
    stream[0]
    assert "turned" not in capsys.readouterr().err  # it is said once
