"""Batches of several shapes: which records share one, in which order, and what they hold."""

import io
import math
from collections import Counter

import jax
import numpy as np
import pytest
from PIL import Image

from jaxvision.data import sources, transforms
from jaxvision.data.buckets import Buckets
from jaxvision.data.codecs import CorruptImageError, decode_image, encode_png
from jaxvision.data.grouping import NOTHING, Grouping
from jaxvision.data.headers import size_of
from jaxvision.data.image_sizes import image_sizes
from jaxvision.data.loader import Loader, Share, host_batches, open_stream
from jaxvision.data.order import Order
from jaxvision.errors import UserError
from jaxvision.tasks import default_config

DEVICE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
SIDES = ((16, 24), (24, 16), (20, 20))
STEP = {"name": "resize_shortest", "size": 16, "longest": 24, "buckets": SIDES}


def same(size):
    return size


def coco_buckets():
    shapes = ((1344, 800), (800, 1344), (1088, 1088))
    (step,) = transforms.compose([{"name": "resize_shortest", "buckets": shapes}]).steps
    return step.buckets


# -- the shapes -----------------------------------------------------------------------------------


def test_the_smallest_bucket_that_holds_an_image():
    found = coco_buckets()
    assert found.shapes == ((800, 1344), (1344, 800), (1088, 1088), (1344, 1344))
    assert found.listed == 3
    assert found.whole == (1344, 1344)
    sizes = {(427, 640): 0, (640, 427): 1, (500, 500): 0, (100, 400): 0, (400, 100): 1}
    for size, place in sizes.items():
        assert found.of_image(size) == place
    # 600 x 600 fits into none of two: 0.5 of it into either, 2/3 into the third, a square.
    few = Buckets.of(((300, 600), (600, 300), (400, 400)), same)
    assert few.of_image((600, 600)) == 0 == few.shapes.index((400, 400))
    assert few.of_image((300, 400)) == 0  # 300 x 600 holds it too, and is larger
    assert few.of_image((300, 500)) == few.shapes.index((300, 600))
    assert few.of_image((900, 90)) == few.shapes.index((600, 300))


def test_the_shape_of_several_buckets():
    found = coco_buckets()
    assert [found.together(places) for places in ([0], [1, 1], [0, 1], [0, 2])] == [0, 1, 3, 3]
    # No shape is added where one holds all.
    nested = Buckets.of((64, (32, 64), (64, 32)), same)
    assert nested.shapes == ((32, 64), (64, 32), (64, 64))
    assert nested.listed == 3
    assert nested.together([0, 1]) == nested.together([2]) == 2
    with pytest.raises(UserError, match="name a shape twice"):
        Buckets.of((64, (64, 64)), same)


# -- the order ------------------------------------------------------------------------------------


def order(count, batch_size, seed=0, **more):
    places = np.random.default_rng(count).choice(3, count, p=(0.6, 0.3, 0.1))
    return Order(count, seed, grouping=Grouping(coco_buckets(), places, batch_size), **more)


@pytest.mark.parametrize(("count", "batch_size"), [(100, 8), (61, 7), (5, 4), (8, 8), (9, 1)])
def test_an_epoch_has_every_record_once_in_batches_of_one_bucket(count, batch_size):
    one, epochs = order(count, batch_size), 9
    found = one.indices(range(epochs * count))
    for epoch in found.reshape(epochs, count):
        assert sorted(epoch) == list(range(count))
    mixed, largest, steps = 0, 0, epochs * count // batch_size
    for step in range(steps):
        rows = found[step * batch_size : (step + 1) * batch_size]
        places = set(one.grouping.places[rows])
        expected = one.grouping.buckets.together(places)
        mixed, largest = mixed + (len(places) > 1), largest + (expected == 3)
        positions = step * batch_size, (step + 1) * batch_size - 1
        assert {one.bucket(position) for position in positions} == {expected}
    # What three buckets leave, and a batch that had to make room for the ends of the epoch. Wide
    # ones meet square ones and these tall ones once an epoch.
    assert mixed <= 4 * epochs
    assert largest <= 2 * epochs + 1
    assert mixed < steps / 2 or count < 10


def test_the_order_is_a_function_of_seed_and_position():
    one, again, other = order(61, 7), order(61, 7), order(61, 7, seed=1)
    whole = one.indices(range(183))
    np.testing.assert_array_equal(again.indices(range(90, 183)), whole[90:])
    assert [again(position) for position in (60, 61, 130)] == [
        (position // 61, whole[position]) for position in (60, 61, 130)
    ]
    assert (other.indices(range(183)) == whole).mean() < 0.2
    assert (whole[:61] == whole[61:122]).mean() < 0.2
    # Batches of one bucket are spread over the epoch.
    buckets = [one.bucket(7 * step) for step in range(26)]
    assert len(set(buckets[:8])) > 1
    assert len(set(buckets[-8:])) > 1


def test_balanced_draws_are_grouped_too():
    shares = np.where(np.arange(40) < 4, 5.0, 1.0)
    plain = Order(40, 3, shares=shares / shares.sum())
    places = np.arange(40) % 3
    one = Order(40, 3, True, plain.shares, Grouping(coco_buckets(), places, 4))
    for epoch in (range(40), range(40, 80)):
        assert Counter(one.indices(epoch)) == Counter(plain.indices(epoch))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_evaluation_pads_each_bucket_to_whole_batches(batch_size):
    one = order(30, batch_size, shuffle=False)
    found = one.indices(range(one.length)).reshape(-1, batch_size)
    assert sorted(found[found != NOTHING]) == list(range(30))
    for rows in found:
        held = rows[rows != NOTHING]
        assert len(held)
        assert len(set(one.grouping.places[held])) == 1
    assert len(found) == sum(-(-n // batch_size) for n in np.bincount(one.grouping.places))
    first = list(one.held())
    assert one.indices(first).tolist() == found[found != NOTHING].tolist()


# -- sizes ----------------------------------------------------------------------------------------


def encoded(height, width, form, orientation=1):
    image, buffer = Image.new("RGB", (width, height)), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(buffer, form, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_sizes_are_those_of_decoded_images(form, orientation, tmp_path):
    data = encoded(5, 9, form, orientation)
    path = tmp_path / "image"
    path.write_bytes(data)
    expected = decode_image(data).shape[:2]
    assert expected == ((9, 5) if orientation == 6 else (5, 9))
    assert size_of(data, "a") == size_of(path, "a") == expected


def test_sizes_come_from_headers_alone(tmp_path):
    for number, form in enumerate(("JPEG", "PNG")):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50 + number, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, form)
        (tmp_path / f"{number}.{form.lower()}").write_bytes(buffer.getvalue()[:700])
    images = tuple(sorted(tmp_path.iterdir()))
    source = sources.Files(images, ("a", "b"), (0, 1))
    chosen = sources.Selection(source, np.array([1, 0]))
    assert image_sizes(chosen) == [(40, 51), (40, 50)]
    images[0].write_bytes(b"nothing")
    with pytest.raises(CorruptImageError, match="no known image format"):
        image_sizes(chosen)
    assert image_sizes(chosen, skip=True) == [(40, 51), None]
    arrays = sources.Arrays(np.zeros((2, 6, 7, 3), np.uint8), np.arange(2), ("a", "b"))
    assert image_sizes(arrays) == [(6, 7)] * 2
    with pytest.raises(CorruptImageError, match=r"missing.png: No such file"):
        size_of(tmp_path / "missing.png", "missing.png")
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 3, 4), np.uint8))
    with pytest.raises(UserError, match="is a volume"):
        size_of(buffer.getvalue(), "a")


# -- batches --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """23 images to train on and 11 to test on, wide, tall, square and panoramic, without a 0."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    sizes = ((20, 30), (30, 20), (40, 50), (22, 22), (10, 40))
    for split, count in (("train", 23), ("test", 11)):
        for i in range(count):
            path = root / split / f"class{i % 2}" / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(1, 256, (*sizes[rng.integers(5)], 3), np.uint8)
            path.write_bytes(encode_png(pixels))
    return root


def stream_of(root, split="train", step=STEP, **keys):
    data = default_config().data
    data.source, data.dir = "folder", str(root)
    data.train_transforms = data.eval_transforms = (step,)
    for key, value in keys.items():
        data[key] = value
    return open_stream(data, split, seed=0, train=split == "train")


def host(stream, start=0, stop=12, share=None, **options):
    return list(host_batches(stream, share or Share(4), start, stop, **options))


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_batches_have_the_shape_of_their_bucket(photos):
    stream = stream_of(photos).grouped(4)
    seen = Counter()
    for batch in host(stream, stop=23):
        seen[batch["image"].shape[1:3]] += 1
        for record, image in zip(batch["image_id"], batch["image"]):
            alone = stream.decode(stream.source[int(record)], "")
            own = stream.transform(alone, np.random.default_rng(0))["image"]
            assert own.shape[:2] in SIDES
            (rows, columns) = (own.any((1, 2)).sum(), own.any((0, 2)).sum())
            np.testing.assert_array_equal(image[:rows, :columns], own[:rows, :columns])
            assert image.any(-1).sum() == rows * columns
    assert set(seen) == {(16, 24), (24, 16), (24, 24)}
    assert seen[24, 24] <= 3 * 4
    assert "in batches of 16x24 (" in stream.describe()
    assert ", 24x24 (mixed)" in stream.describe()


@pytest.mark.parametrize(
    ("shapes", "padding", "pixels"),
    [
        (((1344, 1344),), 0.51, 1.0),
        (((800, 1344), (1344, 800)), 0.17, 0.60),
        (((800, 1344), (1344, 800), (800, 1088), (1088, 800)), 0.10, 0.55),
    ],
)
def test_what_is_saved_on_photographs(shared_data, shapes, padding, pixels):
    """docs/data.md has these numbers, of batches of 8."""
    files = tuple(sorted((shared_data / "coco128_val").rglob("*.jpg")))
    sizes = image_sizes(sources.Files(files, ("any",)))
    (step,) = transforms.compose([{"name": "resize_shortest", "buckets": shapes}]).steps
    found, count, epochs = step.buckets, len(sizes), 10
    assert count == 128
    places = np.array([found.of_image(size) for size in sizes])
    one = Order(count, grouping=Grouping(found, places, 8))
    batches = [math.prod(found.shapes[one.bucket(8 * k)]) for k in range(epochs * count // 8)]
    seen = epochs * sum(math.prod(found.resized(size)) for size in sizes)
    assert 1 - seen / (8 * sum(batches)) == pytest.approx(padding, abs=0.005)
    assert np.mean(batches) / 1344**2 == pytest.approx(pixels, abs=0.005)


def test_threads_processes_and_resuming_change_nothing(photos):
    stream = stream_of(photos).grouped(4)
    whole = host(stream)
    assert_equal(whole, [stream.batch(range(4 * k, 4 * k + 4)) for k in range(12)])
    assert_equal(host(stream, threads=1), whole)
    assert_equal(host(stream, start=5), whole[5:])
    parts = [host(stream, share=Share(4, process, 2)) for process in range(2)]
    joined = [
        {key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*parts, strict=True)
    ]
    assert_equal(joined, whole)
    again = stream_of(photos, cache=True).grouped(4)  # sizes of what is in memory
    assert_equal(host(again), whole)


def test_a_stream_that_is_not_grouped_has_one_shape(photos):
    stream = stream_of(photos)
    assert {batch["image"].shape for batch in host(stream)} == {(4, 24, 24, 3)}
    plain = stream_of(photos, step={"name": "resize", "size": 8})
    assert plain.grouped(4) is plain
    assert stream.grouped(4).example()["image"].shape == (1, 24, 24, 3)


def test_evaluation_has_every_record_once(photos):
    stream = stream_of(photos, "test").grouped(4)
    loader = Loader(stream, 4, DEVICE)
    seen = []
    for batch in jax.device_get(list(loader.batches())):
        assert batch["image"].shape[1:3] in SIDES
        seen += batch["image_id"][batch["valid"]].tolist()
        assert not batch["image"][~batch["valid"]].any()
        assert (batch["geometry"][~batch["valid"]] == np.eye(3)).all()
    assert sorted(seen) == list(range(11))
    assert "in batches of 16x24 (" in stream.describe()
    assert "mixed" not in stream.describe()
    first = stream.example()
    assert first["valid"].all()
    assert first["image"].shape[1:3] == SIDES[0]


def test_unreadable_images_have_a_place_in_batches_too(photos, tmp_path):
    for path in photos.rglob("*.png"):
        copy = tmp_path / path.relative_to(photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        kept = {"03": len(data) // 2, "07": 5}.get(path.stem, len(data))
        copy.write_bytes(data[:kept])
    with pytest.raises(CorruptImageError, match=r"07\.png"):
        stream_of(tmp_path).grouped(4)
    for split, missing in (("train", 2), ("test", 2)):
        stream = stream_of(tmp_path, split, on_corrupt="skip").grouped(4)
        loader = Loader(stream, 4, DEVICE)
        batches = jax.device_get(list(loader.batches(0, 6 if split == "train" else None)))
        assert len(loader.corrupt) == missing
        found = np.concatenate([batch["image_id"][batch["valid"]] for batch in batches])
        names = {stream.source.name(int(index))[-6:] for index in found}
        assert not names & {"03.png", "07.png"}
        assert len(found) == (24 if split == "train" else 9)


def test_boxes_follow_into_any_shape():
    pipeline = transforms.compose([STEP])
    record = {
        "image": np.full((32, 48, 3), 7, np.uint8),
        "boxes": np.float32([[0, 0, 48, 32]]),
        "box_label": np.array([1]),
    }
    for shape in (None, (24, 24), (30, 40)):
        out = pipeline(dict(record), np.random.default_rng(0), shape)
        assert out["image"].shape[:2] == (shape or (16, 24))
        np.testing.assert_array_equal(out["boxes"], [[0, 0, 24, 16]])
        assert out.keys() == {*record, "geometry"}
    small = pipeline(dict(record), np.random.default_rng(0), (24, 16))  # in another's place
    np.testing.assert_allclose(small["boxes"], [[0, 0, 16, 10]])


def test_sizes_drawn_for_each_image_fit_into_the_bucket_of_the_largest():
    step = {**STEP, "size": (8, 12, 16)}
    pipeline = transforms.compose([step])
    assert pipeline.random
    shapes, parts = set(), set()
    for draw in range(20):
        record = {"image": np.full((20, 30, 3), 7, np.uint8)}
        image = pipeline(record, np.random.default_rng(draw))["image"]
        shapes.add(image.shape[:2])
        parts.add(int(image.any((1, 2)).sum()))
    assert shapes == {(16, 24)}
    assert parts == {8, 12, 16}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            [{"name": "ssd_crop"}, STEP],
            r"'resize_shortest' has buckets, .* it has to come before 'ssd_crop'",
        ),
        ([{**STEP, "shape": 32}], r"pads in one way; it has 'shape' and 'buckets', not both"),
        ([{**STEP, "buckets": ((16, 24), (16, 24))}], "name a shape twice"),
        ([{**STEP, "buckets": ((16, -1),)}], "positive integer"),
        (
            [{"name": "views", "views": {"a": {"count": 2, "transforms": [STEP]}}}],
            "View 'a' has buckets; all views have one shape",
        ),
    ],
)
def test_what_cannot_be_grouped_is_refused(steps, message):
    with pytest.raises(UserError, match=message):
        transforms.compose(steps)
