"""Labels in a CSV file."""

import numpy as np
import pytest
from PIL import Image

from jaxvision.data.sources import open_split
from jaxvision.data.sources.splits import labels_of
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.tasks import default_config


def data_of(folder, text, names=("a.png", "b.png", "c.png"), table="labels.csv", **options):
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), index, np.uint8)).save(folder / name)
    (folder / table).write_text(text)
    data = default_config("multilabel").data
    data.source, data.dir, data.options = "csv", str(folder), options
    return data


def test_a_label_an_image(tmp_path):
    text = "image,label,split\na.png,dog,train\nb.png,cat,train\nc.png,dog,test\n"
    data = data_of(tmp_path, text)
    source = open_split(data, "train")
    assert source.class_names == ("cat", "dog")
    assert labels_of(source).tolist() == [1, 0]
    assert open_split(data, "test")[0]["label"] == 1
    assert labels_of(open_split(data, "train+test")).tolist() == [1, 0, 1]
    assert open_stream(data, "train", seed=0, train=True).describe() == (
        "2 records of 'train' (cat 1, dog 1)"
    )
    with pytest.raises(UserError, match=r"split in the column 'split' of .* 'val'. Valid: test"):
        open_split(data, "val")


def test_several_labels_in_a_cell(tmp_path):
    text = "name;tags\na;sky tree\nsub/b.png;\nc;tree\n"  # semicolons, and a byte-order mark
    names = ("a.png", "sub/b.png", "c.jpg")
    options = {"image": "name", "label": "tags", "separator": " ", "file": "{split}.csv"}
    data = data_of(tmp_path, "\ufeff" + text, names, "train.csv", **options)
    stream = open_stream(data, "train", seed=0, train=False, annotations=("labels",))
    assert stream.source.class_names == ("sky", "tree")
    found = {stream.source.name(i)[-5:]: stream[i]["labels"].tolist() for i in range(3)}
    assert found == {"a.png": [True, True], "b.png": [False, False], "c.jpg": [False, True]}


def test_columns_of_zeros_and_ones(tmp_path):
    text = "image,cat,dog\na.png,1,0\nb.png,1.0,True\nc.png,,false\n"
    data = data_of(tmp_path, text, labels=("cat", "dog"))
    data.train, data.test, data.validation = "train", "", "train"
    source = open_split(data, "train")  # the one split that the configuration names has all
    assert [source[i]["labels"] for i in range(3)] == [(0,), (0, 1), ()]
    (tmp_path / "labels.csv").write_text(text.replace("1.0", "2"))
    with pytest.raises(UserError, match="column 'cat' holds '2'; expected 0 or 1"):
        open_split(data, "train")


def test_without_a_split_a_hash_decides(tmp_path):
    names = [f"{i}.png" for i in range(40)]
    text = "image,label\n" + "".join(f"{name},{i % 2}\n" for i, name in enumerate(names))
    data = data_of(tmp_path, text, names)
    parts = [open_split(data, split) for split in ("train", "test")]
    found = [{part.name(i) for i in range(len(part))} for part in parts]
    assert not found[0] & found[1]
    assert len(found[0] | found[1]) == 40
    assert 2 <= len(found[1]) <= 16
    digit = int(parts[0].name(0).rpartition("/")[2].removesuffix(".png"))
    assert parts[0][0]["label"] == digit % 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,lable\na.png,x\n", "column of .*labels.csv 'label'. Did you mean 'lable'"),
        ("image,label\n../a.png,x\n", r"names the image '\.\./a\.png'; expected one below"),
        ("image,label\n/etc/a.png,x\n", "expected one below"),
        ("image,label\n,x\n", "names the image ''"),
        ("image,label\nnone,x\n", "names the image 'none', which is not in"),
        ("image,label\n", "has no row"),
        ("image,label\na.png\n", "line 2: too few columns"),
        ('image,label\n"a.png,x\n', "Cannot read"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    data = data_of(tmp_path, text)
    with pytest.raises(UserError, match=message):
        open_split(data, "train")


def test_other_things_that_are_wrong(tmp_path):
    data = data_of(tmp_path, "image,label\na.png,x\n")
    data.classes = ("cat", "dog")
    data.train, data.test, data.validation = "train", "", "train"
    with pytest.raises(UserError, match=r"label of .*a\.png in labels\.csv: 'x'"):
        open_split(data, "train")
    (tmp_path / "labels.csv").write_bytes(b"image,label\n\xff,x\n")
    with pytest.raises(UserError, match=r"Cannot read .*labels\.csv"):
        open_split(data, "train")
    data.options = {"file": "lables.csv"}
    with pytest.raises(UserError, match=r"'lables\.csv'. Did you mean 'labels\.csv'"):
        open_split(data, "train")
