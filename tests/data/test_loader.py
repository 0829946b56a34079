import os
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from jaxvision.data.batches import stack
from jaxvision.data.codecs import CorruptImageError, encode_png
from jaxvision.data.loader import Loader, Share, host_batches, open_stream
from jaxvision.data.order import Order, record_generator
from jaxvision.data.transforms import compose
from jaxvision.errors import UserError
from jaxvision.tasks import default_config

DEVICE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
CROP = ({"name": "random_resized_crop", "size": 16},)
RESIZE = ({"name": "resize", "size": 16},)
COUNT = 23


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of differing sizes; record i of a class has its number as the mean grey."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", COUNT), ("test", 11)):
        for i in range(count):
            path = root / split / f"class{i % 3}" / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(rng.integers(0, 256, (20 + i, 30, 3), np.uint8)))
    return root


def config(root, **keys):
    data = default_config().data
    data.source, data.dir = "folder", str(root)
    data.train_transforms, data.eval_transforms = CROP, RESIZE
    for key, value in keys.items():
        data[key] = value
    return data


def stream_of(root, split="train", seed=0, train=True, **keys):
    return open_stream(config(root, **keys), split, seed=seed, train=train)


def host(stream, batch_size=4, start=0, stop=12, share=None, **options):
    return list(host_batches(stream, share or Share(batch_size), start, stop, **options))


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
            assert a[key].dtype == b[key].dtype


def damaged(photos, tmp_path, names, split="train"):
    """A copy of the photographs in which some are cut in half."""
    for path in photos.rglob("*.png"):
        copy = tmp_path / path.relative_to(photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        cut = path.parts[-3] == split and path.name[:2] in names
        copy.write_bytes(data[: len(data) // 2] if cut else data)
    return tmp_path


# -- order and shares -----------------------------------------------------------------------------


def test_order_is_a_permutation_of_its_own_each_epoch():
    order = Order(100, seed=3)
    places = [order(p) for p in range(300)]
    assert [epoch for epoch, _ in places] == [0] * 100 + [1] * 100 + [2] * 100
    epochs = np.array([index for _, index in places]).reshape(3, 100)
    for indices in epochs:
        assert sorted(indices.tolist()) == list(range(100))
    other_seed = np.array([Order(100, seed=4)(p)[1] for p in range(100)])
    for a, b in ((epochs[0], epochs[1]), (epochs[1], epochs[2]), (epochs[0], other_seed)):
        assert (a == b).sum() < 8  # 1 expected
    assert (epochs[0] == np.arange(100)).sum() < 8
    np.testing.assert_array_equal(order.indices(range(70, 270)), epochs.ravel()[70:270])


def test_order_without_shuffling():
    order = Order(3, shuffle=False)
    assert [order(p) for p in range(5)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert order.indices(range(1, 5)).tolist() == [1, 2, 0, 1]


def test_shares_must_divide_the_batch():
    with pytest.raises(UserError, match="Batch size 10 is not divisible by 4 processes"):
        Share(10, 0, 4)


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("train", [True, False])
def test_processes_partition_the_same_global_batches(photos, processes, train):
    stream = stream_of(photos, train=train)
    whole = host(stream, batch_size=8, stop=3)
    parts = [host(stream, share=Share(8, p, processes), stop=3) for p in range(processes)]
    joined = [
        {key: np.concatenate([part[i][key] for part in parts]) for key in whole[0]}
        for i in range(3)
    ]
    assert_equal(joined, whole)


# -- what a batch holds ---------------------------------------------------------------------------


def test_batches_on_the_device(photos):
    loader = Loader(stream_of(photos), 4, DEVICE)
    assert loader.batches_per_epoch == COUNT // 4
    batches = list(loader.batches())
    assert len(batches) == 5
    for batch in batches:
        shapes = {key: (value.shape, value.dtype.name) for key, value in batch.items()}
        assert shapes == {
            "image": ((4, 16, 16, 3), "uint8"),
            "label": ((4,), "int32"),
            "image_id": ((4,), "int32"),
            "valid": ((4,), "bool"),
        }
        assert isinstance(batch["image"], jax.Array)
        assert np.asarray(batch["valid"]).all()
    source = loader.stream.source
    for record, label in zip(batches[0]["image_id"], batches[0]["label"]):
        assert source[int(record)]["label"] == int(label)


@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 8}])
def test_threads_change_nothing(photos, options):
    stream = stream_of(photos)
    assert_equal(
        host(stream, **options), [stream.batch(range(4 * i, 4 * i + 4)) for i in range(12)]
    )


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_prefetch_changes_nothing(photos, prefetch):
    loaders = [Loader(stream_of(photos), 4, DEVICE, prefetch=p) for p in (prefetch, 2)]
    assert_equal(*(jax.device_get(list(loader.batches(0, 7))) for loader in loaders))


@pytest.mark.parametrize("start", [1, 5, 11])
def test_resuming_is_skipping(photos, start):
    stream = stream_of(photos)
    assert_equal(host(stream, start=start), host(stream)[start:])
    assert host(stream, start=12) == []


def test_randomness_depends_on_seed_epoch_and_record_alone(photos):
    def crops(batch_size, seed=0, batches=2):
        """{(epoch, record): image} of some epochs"""
        stream = stream_of(photos, seed=seed)
        found = {}
        for i, batch in enumerate(host(stream, batch_size, stop=batches * COUNT // batch_size)):
            for row, record in enumerate(batch["image_id"]):
                epoch = (i * batch_size + row) // COUNT
                found[epoch, int(record)] = batch["image"][row]
        return found

    small, large = crops(4), crops(7)
    both = small.keys() & large.keys()
    assert len(both) > 40
    for key in both:
        np.testing.assert_array_equal(small[key], large[key])
    stream = stream_of(photos)
    for position in (0, COUNT, 2 * COUNT - 1):
        epoch, record = stream.order(position)
        image = stream.decode(stream.source[record], "")
        alone = compose(CROP)(image, record_generator(0, epoch, record))["image"]
        np.testing.assert_array_equal(stream[position]["image"], alone)
    other = crops(4, seed=1)
    for record in range(COUNT):
        first = small[0, record]
        assert (first != other[0, record]).any()
        if (1, record) in small:
            assert (first != small[1, record]).any()


# -- evaluation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 11, 16, 64])
def test_every_record_is_evaluated_once(photos, batch_size):
    stream = stream_of(photos, "test", train=False)
    loader = Loader(stream, batch_size, DEVICE)
    seen = []
    for batch in loader.batches():
        assert batch["image"].shape == (batch_size, 16, 16, 3)
        seen += np.asarray(batch["image_id"])[np.asarray(batch["valid"])].tolist()
        padding = np.asarray(batch["image"])[~np.asarray(batch["valid"])]
        assert not padding.any()
    assert seen == list(range(11))
    assert loader.batches_per_epoch == -(-11 // batch_size)


def test_padded_masks_are_ignored(tmp_path):
    for i in range(3):
        for folder, shape in (("test", (6, 8, 3)), ("testannot", (6, 8))):
            path = tmp_path / folder / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode_png(np.full(shape, i % 2, np.uint8)))
    data = config(tmp_path, source="masks", classes=("a", "b"), eval_transforms=())
    (batch,) = host(open_stream(data, "test", seed=0, train=False), stop=1)
    assert batch["valid"].tolist() == [True, True, True, False]
    assert (batch["segmentation"][3] == 255).all()
    assert (batch["segmentation"][:3] < 2).all()


def test_random_evaluation_is_refused(photos):
    with pytest.raises(UserError, match="eval_transforms are random"):
        stream_of(photos, train=False, eval_transforms=CROP)
    with pytest.raises(UserError, match="Unknown host transform 'rezise'"):
        stream_of(photos, train_transforms=({"name": "rezise"},))


# -- corrupt records ------------------------------------------------------------------------------


def test_training_replaces_corrupt_records(photos, tmp_path):
    root = damaged(photos, tmp_path, ("05", "06", "17"))
    loader = Loader(stream_of(root, on_corrupt="skip"), 4, DEVICE)
    sound = stream_of(photos)
    bad = {i for i in range(COUNT) if sound.source.name(i)[-6:-4] in ("05", "06", "17")}
    assert len(bad) == 3
    batches = jax.device_get(list(loader.batches(0, 6)))
    for i, batch in enumerate(batches):
        assert batch["image"].shape == (4, 16, 16, 3)
        assert batch["valid"].all()
        for row in range(4):
            position = 4 * i + row
            while sound.order(position)[1] in bad:
                position += 1
            assert batch["image_id"][row] == sound.order(position)[1]
            np.testing.assert_array_equal(batch["image"][row], sound[position]["image"])
    assert {name[-6:] for name in loader.corrupt} == {"05.png", "06.png", "17.png"}
    assert all(os.path.isfile(name) for name in loader.corrupt)


def test_evaluation_masks_corrupt_records_out(photos, tmp_path):
    root = damaged(photos, tmp_path, ("00", "07"), split="test")
    loader = Loader(stream_of(root, "test", train=False, on_corrupt="skip"), 4, DEVICE)
    batches = jax.device_get(list(loader.batches()))
    ids = np.concatenate([batch["image_id"][batch["valid"]] for batch in batches])
    assert len(batches) == 3
    names = {loader.stream.source.name(int(i))[-6:] for i in ids}
    assert len(ids) == len(names) == 9
    assert names == {f"{i:02}.png" for i in range(11)} - {"00.png", "07.png"}
    assert {name[-6:] for name in loader.corrupt} == {"00.png", "07.png"}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("cache", [True, False])
def test_corrupt_records_are_errors_unless_skipped(photos, tmp_path, train, cache):
    root = damaged(photos, tmp_path, ("05",))

    def read():
        list(Loader(stream_of(root, train=train, cache=cache), 4, DEVICE).batches(0, 6))

    with pytest.raises(CorruptImageError, match=r"05\.png") as caught:
        read()
    assert caught.value.name == str(root / "train" / "class2" / "05.png")
    assert not [t for t in threading.enumerate() if t.name.startswith("to-device")]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("cache", [True, False])
def test_nothing_readable(photos, tmp_path, train, cache):
    root = damaged(photos, tmp_path, [f"{i:02}" for i in range(COUNT)])
    with pytest.raises(UserError, match="Every image of the split is unreadable"):
        host(stream_of(root, train=train, cache=cache, on_corrupt="skip"))


def test_images_of_differing_size_need_a_transform(photos):
    loader = Loader(stream_of(photos, train_transforms=()), 4, DEVICE)
    with pytest.raises(UserError, match=r"differ in size \(30x\d+ and 30x\d+\).*train_transforms"):
        next(loader.batches())
    assert stack([{"image": np.zeros((2, 2))}] * 3)["image"].shape == (3, 2, 2)


# -- random numbers -------------------------------------------------------------------------------


def test_a_record_has_numbers_of_its_own():
    def draw(*place):
        return record_generator(*place).integers(2**60, size=16).tolist()

    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 2), (2**63, 0, 0)]
    drawn = [draw(*place) for place in places]
    assert len({number for numbers in drawn for number in numbers}) == 16 * len(places)
    assert [draw(*place) for place in reversed(places)] == drawn[::-1]  # whatever came before
    record_generator(0, 0, 0).integers(5, dtype=np.uint32)  # leaves half a word behind
    assert draw(0, 0, 1) == drawn[3]
    fresh = np.random.Generator(np.random.Philox(key=[3, 4], counter=[0, 0, 0, 5]))
    assert draw(3, 4, 5) == fresh.integers(2**60, size=16).tolist()


# -- in memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("broken", [(), ("05", "06")])
def test_cache_changes_nothing(photos, tmp_path, train, broken):
    root = damaged(photos, tmp_path, broken)
    options = {"train": train, "on_corrupt": "skip"}
    plain, cached = (stream_of(root, cache=cache, **options) for cache in (False, True))
    assert not any(isinstance(cached.source[i]["image"], bytes) for i in range(3))
    assert_equal(host(cached, stop=6), host(plain, stop=6))
    loaders = [Loader(stream, 4, DEVICE) for stream in (plain, cached)]
    for loader in loaders:
        list(loader.batches(0, 6))
    assert loaders[0].corrupt == loaders[1].corrupt
    assert len(loaders[0].corrupt) == len(broken)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("batch_size", [4, 6])
def test_cached_arrays_change_nothing(tmp_path, train, batch_size):
    rng = np.random.default_rng(0)
    for i in range(10):
        path = tmp_path / "train" / f"c{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(rng.integers(0, 256, (8, 8, 3), np.uint8)))
    keys = {"train_transforms": (), "eval_transforms": (), "channels": 1, "train": train}
    plain, cached = (stream_of(tmp_path, cache=cache, **keys) for cache in (False, True))
    assert cached.vectorised
    assert not plain.vectorised
    whole = host(plain, batch_size, stop=5)
    assert_equal(host(cached, batch_size, stop=5), whole)
    assert_equal(host(cached, batch_size, start=2, stop=5), whole[2:])
    crops = {**keys, "train_transforms": CROP, "eval_transforms": RESIZE}
    plain, cached = (stream_of(tmp_path, cache=cache, **crops) for cache in (False, True))
    assert not cached.vectorised
    assert_equal(host(cached, batch_size, stop=5), host(plain, batch_size, stop=5))


def test_prepared_records_do_not_keep_whole_images(photos):
    crop = ({"name": "center_crop", "size": 4},)
    image = stream_of(photos, train_transforms=crop)[0]["image"]
    assert image.shape == (4, 4, 3)
    assert image.flags.c_contiguous
    assert image.base is None or image.base.nbytes == image.nbytes


# -- threads and processes that end ---------------------------------------------------------------


def feeding():
    names = ("to-device", "grain-prefetch")
    return [t for t in threading.enumerate() if t.name.startswith(names)]


def test_closing_early_ends_the_threads(photos):
    before = set(feeding())
    batches = Loader(stream_of(photos), 4, DEVICE).batches(0, 10**6)
    next(batches)
    assert set(feeding()) - before
    batches.close()
    deadline = time.monotonic() + 5
    while set(feeding()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(feeding()) - before


SCRIPT = """
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, {tests!r})
    from test_loader import *

    root, damaged_root = Path({root!r}), Path({damaged!r})
    {body}
"""

ABANDON = """
    batches = Loader(stream_of(root), 4, DEVICE, workers={workers}).batches(0, 10**6)
    next(batches)
    next(batches)
    print("leaving", flush=True)
"""

WORKERS = """
    import psutil
    for options, span in (({}, {"start": 2, "stop": 5}), ({"train": False}, {"stop": 6})):
        stream = stream_of(root, **options)
        assert_equal(host(stream, workers=2, **span), host(stream, **span))
    batches = Loader(stream, 4, DEVICE, workers=1).batches(0, 3)
    next(batches)
    batches.close()
    children = psutil.Process().children(recursive=True)
    assert not [c for c in children if "spawn_main" in " ".join(c.cmdline())], children
    for error, stream, text in (
        (CorruptImageError, stream_of(damaged_root), "05.png"),
        (UserError, stream_of(root, train_transforms=()), "differ in size"),
    ):
        try:
            list(Loader(stream, 4, DEVICE, workers=1).batches(0, 6))
        except UserError as caught:
            assert type(caught) is error and text in str(caught), caught
        else:
            raise AssertionError("no error")
    loader = Loader(stream_of(damaged_root, on_corrupt="skip"), 4, DEVICE, workers=1)
    assert len(list(loader.batches(0, 6))) == 6
    assert [name[-6:] for name in loader.corrupt] == ["05.png"], loader.corrupt
    print("as it should be")
"""


def run_script(tmp_path, photos, body):
    root = damaged(photos, tmp_path / "damaged", ("05",))
    script = tmp_path / "script.py"
    tests = os.path.dirname(__file__)
    script.write_text(
        SCRIPT.format(tests=tests, body=body.strip(), root=str(photos), damaged=str(root))
    )
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300
    )
    return done, time.monotonic() - begin


def test_worker_processes_change_nothing_and_pass_errors_on(photos, tmp_path):
    done, _ = run_script(tmp_path, photos, WORKERS)
    assert (done.returncode, done.stdout) == (0, "as it should be\n"), done.stderr[-3000:]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_abandoned_loader_lets_the_process_end(photos, tmp_path, workers):
    done, seconds = run_script(tmp_path, photos, ABANDON.replace("{workers}", str(workers)))
    assert (done.returncode, done.stdout) == (0, "leaving\n"), done.stderr[-3000:]
    assert seconds < 30
