import gzip
import struct
import subprocess
import sys

import numpy as np
import pytest

from jaxvision.data.annotations import Settings, named
from jaxvision.data.codecs import CorruptImageError, decode_image, encode_png
from jaxvision.data.decode import Decode
from jaxvision.data.prepare import prepare
from jaxvision.data.sources import (
    base_splits,
    idx_files,
    image_folder,
    mask_folder,
    open_split,
    read_idx,
    tfds_builder,
)
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.tasks import default_config


def png(value, height=6, width=8):
    return encode_png(np.full((height, width, 3), value, np.uint8))


def write(path, data=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def config(source, root, **keys):
    data = default_config().data
    data.source, data.dir = source, str(root)
    for key, value in keys.items():
        data[key] = value
    return data


def ids(source):
    """The value of each record's first pixel, in order."""
    return [int(decode_image(source[i]["image"])[0, 0, 0]) for i in range(len(source))]


# -- image folder ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """20 cats (pixel values 0 to 19) and 20 dogs (100 to 119), 5 of each for testing."""
    for split, count in (("train", 20), ("test", 5)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                write(tmp_path / split / name / f"{i:02}.png", png(100 * label + i))
    return tmp_path


def test_image_folder(folder):
    write(folder / "train" / "cat" / "deep" / "er" / "X.PNG", png(50))
    write(folder / "train" / "cat" / ".hidden.png")
    write(folder / "train" / "cat" / ".cache" / "thumb.png")
    write(folder / "train" / ".ipynb_checkpoints" / "a.png")
    write(folder / "train" / "dog" / "notes.txt")
    write(folder / "train" / "stray.png")
    source = image_folder(folder, "train")
    assert len(source) == 41
    assert source.class_names == ("cat", "dog")
    assert sorted(ids(source)) == [*range(20), 50, *range(100, 120)]
    for i in range(41):
        assert source[i]["label"] == (ids(source)[i] >= 100)
        assert ("dog" if source[i]["label"] else "cat") in source.name(i)
    assert ids(source) == ids(image_folder(folder, "train"))
    first_half = [source[i]["label"] for i in range(20)]
    assert 5 <= sum(first_half) <= 15  # any slice mixes the classes


def test_image_folder_with_given_classes(folder):
    source = image_folder(folder, "test", ("dog", "bird", "cat"))
    assert source.class_names == ("dog", "bird", "cat")
    assert {source[i]["label"] for i in range(len(source))} == {0, 2}
    with pytest.raises(UserError, match=r"'dog'.*Did you mean 'dot'"):
        image_folder(folder, "test", ("cat", "dot"))


def test_image_folder_errors(folder, tmp_path):
    with pytest.raises(UserError, match=r"No such data folder: .*nowhere"):
        image_folder(tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match=r"Unknown split .*'tran'.*'train'"):
        image_folder(folder, "tran")
    (folder / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match=r"No image in .*empty"):
        image_folder(folder, "empty")
    source = image_folder(folder, "train")
    source.images[3].unlink()
    with pytest.raises(CorruptImageError, match="No such file") as caught:
        source[3]
    assert caught.value.name == source.name(3)


def test_every_split_counts_classes_as_the_training_split(folder):
    write(folder / "train" / "bird" / "0.png", png(200))
    data = config("folder", folder)
    test = open_split(data, "test")
    assert test.class_names == ("bird", "cat", "dog")
    assert {test[i]["label"] for i in range(len(test))} == {1, 2}
    write(folder / "test" / "fish" / "0.png", png(200))
    with pytest.raises(UserError, match="'fish'"):
        open_split(data, "test")
    # Without a training split the classes are those of the split itself.
    data.train = "absent"
    assert open_split(data, "test").class_names == ("cat", "dog", "fish")


@pytest.mark.parametrize(("source", "option"), [("folder", "size"), ("masks", "mask")])
def test_unknown_options_of_folders(folder, source, option):
    data = config(source, folder)
    data.options = {option: 3}
    with pytest.raises(UserError, match=f"Unknown option .*'{option}'"):
        open_split(data, "train")


# -- masks ----------------------------------------------------------------------------------------


@pytest.fixture
def masks(tmp_path):
    for i in range(6):
        write(tmp_path / "train" / f"{i}.jpg", png(i))
        write(tmp_path / "trainannot" / f"{i}.png", encode_png(np.full((6, 8), i % 3, np.uint8)))
    return tmp_path


def test_mask_folder(masks):
    write(masks / "train" / "._3.jpg")
    stream = open_stream(
        config("masks", masks, classes=("a", "b", "c")), "train", seed=0, train=False
    )
    assert stream.order.count == 6
    for i in range(6):
        record = stream[i]
        assert record["segmentation"].shape == (6, 8)
        assert (record["segmentation"] == record["image"][0, 0, 0] % 3).all()
    (masks / "trainannot").rename(masks / "truth_of_train")
    data = config("masks", masks, classes=("a", "b", "c"))
    data.options = {"masks": "truth_of_{split}"}
    assert len(open_split(data, "train[:50%]")) == 3


def test_mask_folder_errors(masks):
    with pytest.raises(UserError, match=r"needs data\.classes"):
        mask_folder(masks, "train", (), "{split}annot")
    with pytest.raises(UserError, match=r"Unknown mask folder .*'trainanot'.*'trainannot'"):
        mask_folder(masks, "train", ("a",), "{split}anot")
    with pytest.raises(UserError, match=r"'\{x\}annot'"):
        mask_folder(masks, "train", ("a",), "{x}annot")
    (masks / "trainannot" / "4.png").unlink()
    with pytest.raises(UserError, match=r"1 of 6 images .* have no mask .*, first 4\.jpg"):
        mask_folder(masks, "train", ("a",), "{split}annot")
    (masks / "none").mkdir()
    with pytest.raises(UserError, match="No image"):
        mask_folder(masks, "none", ("a",), "trainannot")


def test_masks_of_other_names_and_places_by_a_list(tmp_path):
    """As Cityscapes (sub-folders, renamed) and PASCAL VOC (a list of names) have it."""
    for i in range(4):
        write(tmp_path / "left" / "train" / "city" / f"{i}_left.jpg", png(i))
        mask = encode_png(np.full((6, 8), i, np.uint8))
        write(tmp_path / "fine" / "train" / "city" / f"{i}_fine.png", mask)
    (tmp_path / "train.txt").write_text("city/2_left\n\ncity/0_left\n")
    data = config("masks", tmp_path, classes=("a", "b", "c", "d"))
    data.options = {
        "images": "left/{split}",
        "masks": "fine/{split}",
        "rename": ("_left", "_fine"),
        "list": "{split}.txt",
    }
    stream = open_stream(data, "train", seed=0, train=False)
    assert [int(stream[i]["segmentation"][0, 0]) for i in range(2)] == [2, 0]
    data.options["list"] = "trian.txt"
    with pytest.raises(UserError, match=r"list of images .*'trian\.txt'.*'train\.txt'"):
        open_split(data, "train")
    (tmp_path / "train.txt").write_text("city/9_left\n")
    data.options["list"] = "train.txt"
    with pytest.raises(UserError, match=r"1 listed images are not in .*, first city/9_left"):
        open_split(data, "train")


def test_volumes_are_numpy_files(tmp_path):
    rng = np.random.default_rng(0)
    volumes = rng.integers(0, 256, (2, 5, 6, 7), np.uint8)
    for i, volume in enumerate(volumes):
        for folder, content in (("train", volume), ("trainannot", volume % 3)):
            (tmp_path / folder).mkdir(exist_ok=True)
            np.save(tmp_path / folder / f"{i}.npy", content)
    data = config("masks", tmp_path, classes=("a", "b", "c"))
    data.channels = 1
    stream = open_stream(data, "train", seed=0, train=False)
    record = stream[0]
    assert record["image"].shape == (5, 6, 7, 1)
    np.testing.assert_array_equal(record["segmentation"], record["image"][..., 0] % 3)
    np.save(tmp_path / "train" / "0.npy", np.zeros((5, 6, 7)))
    np.save(tmp_path / "train" / "1.npy", np.zeros((5, 6, 7)))
    with pytest.raises(CorruptImageError, match="a volume is uint8"):
        stream[0]
    objects = np.array([{"a": 1}], dtype=object)
    np.save(tmp_path / "train" / "0.npy", objects, allow_pickle=True)
    np.save(tmp_path / "train" / "1.npy", objects, allow_pickle=True)
    with pytest.raises(CorruptImageError, match="allow_pickle"):
        stream[0]


def test_decode_checks_masks_and_labels():
    def mask(values):
        return encode_png(np.resize(np.array(values, np.uint8), (6, 8)))

    settings = Settings(num_classes=3, void=(11, 2))
    decode = Decode(3, named(["label", "segmentation"]), settings)
    out = decode({"image": png(9), "segmentation": mask([0, 1, 2, 11, 255])}, "r")
    assert sorted(set(out["segmentation"].ravel().tolist())) == [0, 1, 255]
    assert (out["segmentation"].ravel()[2:5] == 255).all()
    assert out["image"].shape == (6, 8, 3)
    with pytest.raises(UserError, match=r"mask of rec7 has value 3, but there are 3 classes"):
        decode({"image": png(9), "segmentation": mask([0, 3])}, "rec7")
    with pytest.raises(UserError, match="rec7: the image is 8x6 pixels, its mask 8x5"):
        decode({"image": png(9), "segmentation": encode_png(np.zeros((5, 8), np.uint8))}, "rec7")
    colours = encode_png(np.resize(np.arange(99, dtype=np.uint8), (6, 8, 3)))
    with pytest.raises(UserError, match=r"rec7 \(mask\): .*RGB.*\(0, 1, 2\).*data\.mask_colours"):
        decode({"image": png(9), "segmentation": colours}, "rec7")
    negative = np.full((6, 8), -1, np.int32)
    with pytest.raises(UserError, match="rec7 has values outside"):
        decode({"image": png(9), "segmentation": negative}, "rec7")
    for label in (-1, 3):
        with pytest.raises(UserError, match=f"rec7 has label {label}, but there are 3 classes"):
            decode({"image": png(9), "label": label}, "rec7")
    both = {"image": png(9), "label": 36, "segmentation": mask([1])}
    for name in ("segmentation", "label"):
        one = Decode(3, named([name]), Settings(num_classes=37))
        assert one(both, "r").keys() == {"image", name}


@pytest.mark.parametrize("stored", [1, 3])
@pytest.mark.parametrize("wanted", [1, 3])
def test_decode_converts_arrays(stored, wanted):
    array = np.random.default_rng(0).integers(0, 256, (6, 8, stored), np.uint8)
    out = Decode(wanted)({"image": array}, "r")["image"]
    np.testing.assert_array_equal(out, decode_image(encode_png(array), wanted))


# -- splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("train", range(40)),
        ("train[:90%]", range(36)),
        ("train[90%:]", range(36, 40)),
        ("train[10:20]", range(10, 20)),
        ("train[-5:]", range(35, 40)),
        ("train[:10%]+test", [*range(4), *range(40, 50)]),
        ("train[5:7]+train[:2]", [5, 6, 0, 1]),
    ],
)
def test_split_specs(folder, spec, expected):
    data = config("folder", folder)
    whole = ids(open_split(data, "train")) + ids(open_split(data, "test"))
    source = open_split(data, spec)
    assert ids(source) == [whole[i] for i in expected]
    for i in (0, len(source) - 1):
        record = source[i]
        assert f"{ids(source)[i] % 100:02}.png" in source.name(i)
        assert ("dog" if record["label"] else "cat") in source.name(i)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("train[:0]", r"'train\[:0\]' selects no record \(train has 40\)"),
        ("train[30:10]", "train"),
        ("train[", "Cannot read split"),
        ("train[a:b]", "Cannot read split"),
        ("train[:110%]", "Cannot read split"),
        ("train[:2shard]", "Cannot read split"),
        ("train[:5]++test", "Cannot read split"),
        ("", "Cannot read split"),
        ("tests", "Unknown split .*'tests'.*'test'"),
        ("train+tests[:3]", "Unknown split .*'tests'.*'test'"),
    ],
)
def test_bad_split_specs(folder, spec, message):
    with pytest.raises(UserError, match=message):
        open_split(config("folder", folder), spec)


def test_base_splits():
    assert base_splits("train[:50%] + test[3:]+extra") == ["train", "test", "extra"]


# -- idx files ------------------------------------------------------------------------------------


def idx(array, kind=0x08):
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, kind, array.ndim)) + shape + array.tobytes()


IMAGES = np.arange(10 * 5 * 4, dtype=np.uint8).reshape(10, 5, 4)
LABELS = np.arange(10, dtype=np.uint8) % 4


@pytest.fixture
def idx_folder(tmp_path):
    for split in ("train", "t10k"):
        write(tmp_path / f"{split}-images-idx3-ubyte", idx(IMAGES))
        write(tmp_path / f"{split}-labels-idx1-ubyte", idx(LABELS))
    return tmp_path


@pytest.mark.parametrize("layout", ["plain", "gzip", "dotted"])
def test_idx_files(idx_folder, layout):
    for path in list(idx_folder.iterdir()):
        if layout == "gzip":
            write(path.with_suffix(".gz"), gzip.compress(path.read_bytes()))
            path.unlink()
        elif layout == "dotted":
            path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    source = open_split(config("idx", idx_folder), "train[:3]+test[8:]")
    assert source.class_names == ("0", "1", "2", "3")
    for i, index in enumerate((0, 1, 2, 8, 9)):
        np.testing.assert_array_equal(source[i]["image"], IMAGES[index][..., None])
        assert source[i]["label"] == index % 4
    assert open_split(config("idx", idx_folder, classes=list("abcd")), "test").class_names == tuple(
        "abcd"
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "has 215 bytes, its header .* asks for 216"),
        (lambda data: data + b"x", "has 217 bytes"),
        (lambda data: data[:9], "truncated inside its header"),
        (lambda data: b"", "not an idx file"),
        (lambda data: b"PK" + data, "not an idx file: it starts with b'PK"),
        (lambda data: data[:2] + b"\x07" + data[3:], "not an idx file"),
        (lambda data: gzip.compress(data)[:-20], "Cannot read"),
        (lambda data: gzip.compress(data)[:30] + bytes(40), "Cannot read|asks for"),
        (lambda data: data[:4] + b"\xff" * 12 + data[16:], "header"),
    ],
)
def test_damaged_idx(tmp_path, damage, message):
    path = write(tmp_path / "train-images-idx3-ubyte", damage(idx(IMAGES)))
    with pytest.raises(UserError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_idx_types(tmp_path):
    values = np.array([[1.5, -2.0]], ">f4")
    np.testing.assert_array_equal(read_idx(write(tmp_path / "a", idx(values, 0x0D))), values)
    assert read_idx(write(tmp_path / "b", idx(np.zeros((0, 2), np.uint8)))).shape == (0, 2)


def test_idx_folder_errors(idx_folder):
    write(idx_folder / "train-labels-idx1-ubyte", idx(LABELS[:7]))
    with pytest.raises(UserError, match="10 images but 7 labels in train"):
        idx_files(idx_folder, "train")
    write(idx_folder / "train-images-idx3-ubyte", idx(IMAGES.astype(">i2"), 0x0B))
    with pytest.raises(UserError, match=r"images of train are .*expected uint8"):
        idx_files(idx_folder, "train")
    write(idx_folder / "t10k-labels-idx1-ubyte", idx(IMAGES))
    with pytest.raises(UserError, match="labels of test are uint8"):
        idx_files(idx_folder, "test")
    (idx_folder / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(UserError, match=r"No t10k-images-idx3-ubyte\[\.gz\]"):
        idx_files(idx_folder, "test")
    with pytest.raises(UserError, match=r"Unknown split of idx files 'tst'.*'test'"):
        idx_files(idx_folder, "tst")


@pytest.mark.parametrize("cut", ["train", "train[1:]"])
def test_labels_of_arrays_are_checked(idx_folder, cut):
    data = config("idx", idx_folder, classes=("a", "b", "c"), channels=1)
    with pytest.raises(UserError, match=r"train\[3\] has label 3, but there are 3 classes"):
        open_stream(data, cut, seed=0, train=True)


# -- TFDS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tfds_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    tfds_builder("digits", str(directory))
    return directory


def test_tfds_digits(tfds_dir):
    data = config("tfds", tfds_dir, channels=1)
    source = open_split(data, "train")
    assert len(source) == 1437
    assert source.class_names == tuple("0123456789")
    assert source.name(3) == "digits[3]"
    record = source[3]
    assert isinstance(record["image"], bytes)
    assert isinstance(record["label"], int)
    assert decode_image(record["image"], 1).shape == (8, 8, 1)
    cut = open_split(data, "train[:10%]+test[100:200]")
    assert len(cut) == 144 + 100
    assert cut[3] == record
    assert cut.name(144) == "digits[100]"
    assert cut[144] == open_split(data, "test")[100]


def test_tfds_errors(tfds_dir):
    data = config("tfds", tfds_dir)
    with pytest.raises(UserError, match="Unknown split of digits 'validation'"):
        open_split(data, "validation")
    with pytest.raises(UserError, match="Cannot read split"):
        open_split(data, "train[")
    with pytest.raises(UserError, match="selects no record"):
        open_split(data, "train[1437:]")
    with pytest.raises(UserError, match=r"Unknown data set 'cifar11'.*'cifar10'"):
        tfds_builder("cifar11", str(tfds_dir))
    with pytest.raises(UserError, match=r"No data set 'cifar10:77\.0\.0'"):
        tfds_builder("cifar10:77.0.0", str(tfds_dir))
    with pytest.raises(
        UserError, match=r"'cifar10' is not prepared.*jaxvision data prepare cifar10"
    ):
        tfds_builder("cifar10", str(tfds_dir))
    with pytest.raises(UserError, match=r"'coco/2017' is not prepared"):  # its class wants more
        tfds_builder("coco/2017", str(tfds_dir))
    with pytest.raises(UserError, match=r"data\.options are for built-in"):
        tfds_builder("cifar10", str(tfds_dir), {"size": 3})
    with pytest.raises(UserError, match=r"Unknown option .*'sise'"):
        tfds_builder("digits", str(tfds_dir), {"sise": 3})
    few = config("tfds", tfds_dir, classes=("zero", "one"))
    with pytest.raises(UserError, match=r"digits\[\d+\] has label \d, but there are 2 classes"):
        list(map(open_stream(few, "train", seed=0, train=False).__getitem__, range(9)))


def test_prepare(tfds_dir):
    builder = prepare("digits", str(tfds_dir))
    assert builder.info.splits["test"].num_examples == 360
    with pytest.raises(UserError, match="Unknown data set 'digit'") as caught:
        prepare("digit", str(tfds_dir))
    assert str(caught.value).count("'digits'") == 1
    with pytest.raises(UserError, match=r"Cannot prepare 'cifar10:77\.0\.0'"):
        prepare("cifar10:77.0.0", str(tfds_dir))


def test_folder_sources_do_not_import_tensorflow(folder):
    """What a worker process imports, too."""
    code = (
        "import sys\nfrom jaxvision.tasks import default_config\n"
        "from jaxvision.data.stream import open_stream\n"
        f"data = default_config().data\ndata.source, data.dir = 'folder', {str(folder)!r}\n"
        "print(len(open_stream(data, 'train', seed=0, train=True).source))\n"
        "assert 'tensorflow' not in sys.modules and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "40\n"), done.stderr
