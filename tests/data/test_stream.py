"""All annotations of `shapes`, views, and users' own parts, from the disk to batches."""

import pickle
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.data import notices, sources, transforms
from jaxvision.data.annotations.caption import text_of
from jaxvision.data.augment import augment, register
from jaxvision.data.augment.policy import AUGMENTATIONS
from jaxvision.data.batches import put, stack
from jaxvision.data.builders.drawing import draw
from jaxvision.data.facts import Facts, mirrored_pairs
from jaxvision.data.geometry import Geometry
from jaxvision.data.loader import Loader, Share, host_batches, open_stream
from jaxvision.data.stream import INTERNAL
from jaxvision.errors import UserError
from jaxvision.ops import geometry as affine
from jaxvision.tasks import default_config

DEVICE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
ALL = ("label", "segmentation", "instances", "caption")
RESIZE = ({"name": "resize_shorter", "size": 40}, {"name": "pad_to", "size": 48, "center": True})
KEYS = {
    "image": ((4, 48, 48, 3), "uint8"),
    "label": ((4,), "int32"),
    "segmentation": ((4, 48, 48), "uint8"),
    "boxes": ((4, 100, 4), "float32"),
    "box_label": ((4, 100), "int32"),
    "box_valid": ((4, 100), "bool"),
    "box_crowd": ((4, 100), "bool"),
    "instance_masks": ((4, 100, 48, 6), "uint8"),
    "mask_valid": ((4, 100), "bool"),
    "keypoints": ((4, 100, 4, 3), "float32"),
    "caption": ((4, 5, 512), "uint8"),
    "caption_valid": ((4, 5), "bool"),
    "image_id": ((4,), "int32"),
    "valid": ((4,), "bool"),
}


def config(**keys):
    data = default_config().data
    data.name, data.options = "shapes", {"size": 32, "train": 10, "test": 6}
    data.classes = tuple("abcdefghijk")
    data.train_transforms = ({"name": "random_resized_crop", "size": 48, "scale": (0.2, 1.0)},)
    data.eval_transforms = RESIZE
    for key, value in keys.items():
        data[key] = value
    return data


def stream_of(train=False, annotations=ALL, unused=(), **keys):
    split = "train" if train else "test"
    data = config(**keys)
    return open_stream(data, split, seed=0, train=train, annotations=annotations, unused=unused)


def unpacked(masks):
    """The masks of batches of 48x48 pixels."""
    return np.unpackbits(np.asarray(masks), axis=-1, count=48).astype(bool)


def host(stream, batch_size=4, stop=2):
    return list(host_batches(stream, Share(batch_size), 0, stop))


def shapes_of(batch):
    return {key: (value.shape, value.dtype.name) for key, value in batch.items()}


# -- every annotation -----------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [False, True])
def test_evaluation_batches_have_every_annotation(cache):
    stream = stream_of(cache=cache)
    first, second = (jax.device_get(b) for b in Loader(stream, 4, DEVICE).batches())
    expected = {"geometry": ((4, 3, 3), "float32"), "image_size": ((4, 2), "int32")}
    assert shapes_of(first) == KEYS | expected
    assert shapes_of(second) == shapes_of(first)
    assert second["valid"].tolist() == [True, True, False, False]
    scale = 40 / 32
    for row in range(4):
        drawn = draw(0, 2**31 + row, 32)
        count = len(drawn["boxes"])
        assert first["label"][row] == drawn["label"]
        assert text_of(first["caption"][row, 0]) == drawn["caption"]
        assert first["caption_valid"][row].tolist() == [True] + 4 * [False]
        assert first["box_valid"][row].sum() == count
        assert first["box_label"][row, :count].tolist() == drawn["box_label"].tolist()
        boxes = first["boxes"][row, :count]
        np.testing.assert_allclose(boxes, drawn["boxes"] * scale + 4, atol=1e-4)
        points = first["keypoints"][row, :count]
        np.testing.assert_allclose(points[..., :2], drawn["keypoints"][..., :2] * scale + 4, 1e-4)
        masks, classes = unpacked(first["instance_masks"][row, :count]), first["segmentation"][row]
        assert first["mask_valid"][row].sum() == count
        np.testing.assert_array_equal(masks.any(0), (classes != 0) & (classes != 255))
        assert masks.sum(0).max() == 1
        for mask, label in zip(masks, drawn["box_label"]):
            assert (classes[mask] == label + 1).all()
        geometry = Geometry.from_array(first["geometry"][row], first["image_size"][row], (48, 48))
        np.testing.assert_array_equal(geometry.restore_labels(classes), drawn["segmentation"])
        np.testing.assert_allclose(geometry.inverse_boxes(boxes), drawn["boxes"], atol=1e-4)


def test_blank_rows_say_nothing():
    (_, last) = host(stream_of())
    for key, rows in last.items():
        blank = rows[2:]
        if key == "geometry":
            np.testing.assert_array_equal(blank[0], np.eye(3))
        else:
            assert (blank == {"segmentation": 255, "corrupt": -1}.get(key, 0)).all(), key


def test_training_batches_have_every_annotation_and_no_way_back():
    stream = stream_of(train=True)
    batches = jax.device_get(list(Loader(stream, 4, DEVICE).batches(0, 5)))
    for batch in batches:
        assert shapes_of(batch) == KEYS | {"caption_tokens": ((4, 5, 32), "int32")}
        for row in range(4):
            valid = batch["box_valid"][row]
            masks = unpacked(batch["instance_masks"][row])
            np.testing.assert_array_equal(masks.any((1, 2)), valid)
            for mask, box in zip(masks[valid], batch["boxes"][row][valid]):
                rows, columns = np.nonzero(mask)
                assert box[0] - 1 <= columns.min() <= columns.max() + 1 <= box[2] + 1
                assert box[1] - 1 <= rows.min() <= rows.max() + 1 <= box[3] + 1
    assert_same = [stack([stream[4 * i + row] for row in range(4)]) for i in range(5)]
    for batch, again in zip(host(stream, stop=5), assert_same):
        for key in again:
            np.testing.assert_array_equal(batch[key], again[key])


def test_annotations_that_are_not_asked_for_are_left_out():
    (batch, *_) = host(stream_of(annotations=("label",)))
    keys = {"image", "label", "image_id", "valid", "geometry", "image_size", *INTERNAL}
    assert batch.keys() == keys
    assert host(stream_of(annotations=()))[0].keys() == keys - {"label"}
    with pytest.raises(UserError, match="Unknown annotation 'box'"):
        stream_of(annotations=("box",))


@pytest.mark.parametrize("cache", [False, True])
def test_parts_that_a_task_never_looks_at_are_left_out(cache):
    unused = ("instance_masks", "keypoints")
    stream = stream_of(annotations=("instances",), unused=unused, cache=cache)
    record = stream[0]
    assert not {"instance_masks", "mask_valid", "instances", "keypoints"} & set(record)
    whole = stream_of(annotations=("instances",), cache=cache)[0]
    assert {"instance_masks", "keypoints"} <= set(whole)
    np.testing.assert_array_equal(record["boxes"], whole["boxes"])


@pytest.mark.parametrize("train", [False, True])
def test_objects_that_are_too_many_are_counted(train):
    data = config(max_instances=1, train_transforms=RESIZE)
    stream = open_stream(data, "test", seed=0, train=train, annotations=("instances",))
    loader = Loader(stream, 4, DEVICE)
    batches = list(loader.batches())
    assert not set(batches[0]) & set(INTERNAL)
    drawn = {stream.source.name(i): len(stream.source[i]["boxes"]) for i in range(6)}
    read = [stream.source.name(int(i)) for b in batches for i in b["image_id"][b["valid"]]]
    expected = {f"{name} of 'test'": drawn[name] - 1 for name in read if drawn[name] > 1}
    assert loader.left_out == expected
    assert expected
    text = notices.of_left_out({"a": 2, "b": 5}, 10)
    assert text.startswith("2 images have more objects than data.max_instances=10: the largest")
    assert text.endswith("7 left out. Raise it to 15 for all of them (most are in b).")


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("annotations", [("label",), ()])
def test_vectorised_batches_have_the_same_keys(train, annotations):
    keys = {"train_transforms": (), "eval_transforms": (), "train": train}
    plain = stream_of(annotations=annotations, **keys)
    cached = stream_of(annotations=annotations, cache=True, **keys)
    assert cached.vectorised
    for ours, theirs in zip(host(cached), host(plain), strict=True):
        assert shapes_of(ours) == shapes_of(theirs)
        for key in ours:
            np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)


def test_volumes_come_with_their_identity():
    data = default_config().data
    data.name, data.channels = "volumes", 1
    data.options = {"size": 16, "train": 3, "test": 2}
    data.classes = ("background", "organ", "lesion")
    stream = open_stream(data, "test", seed=0, train=False, annotations=("segmentation",))
    (batch,) = host(stream, stop=1)
    assert batch["segmentation"].shape == (4, 16, 16, 16)
    assert batch["image_size"].tolist() == [[16] * 3] * 2 + [[0] * 3] * 2
    data.eval_transforms = ({"name": "resize", "size": 8},)
    with pytest.raises(UserError, match="this is a volume"):
        host(open_stream(data, "test", seed=0, train=False, annotations=("segmentation",)), stop=1)


# -- on the device --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "flip_horizontal", "keypoint_order": [0, 1, 2, 3]},
        {"name": "random_crop", "padding": 8},
        {"name": "random_affine", "degrees": 30.0, "scale": (0.8, 1.2)},
    ],
)
def test_all_annotations_follow_augmentation(entry):
    (batch, *_) = host(stream_of(train=True, annotations=("segmentation", "instances")))
    batch = {k: v[:, :8] if v.shape[1:2] == (100,) else v for k, v in batch.items()}
    batch = {key: jnp.asarray(value) for key, value in batch.items()}
    out = jax.jit(lambda key, batch: augment(key, batch, [entry]))(jax.random.key(2), batch)
    masks, valid = unpacked(out["instance_masks"]), np.asarray(out["box_valid"])
    np.testing.assert_array_equal(masks.any((2, 3)), valid)
    segmentation = np.asarray(out["segmentation"])
    np.testing.assert_array_equal(masks.any(1), (segmentation != 0) & (segmentation != 255))
    motion = AUGMENTATIONS[entry["name"]].function(
        jax.random.fold_in(jax.random.key(2), 0),
        batch["image"].shape,
        **{k: v for k, v in entry.items() if k != "name"},
    )
    boxes = affine.clip_boxes(affine.warp_boxes(batch["boxes"], motion.matrix), 48, 48)
    np.testing.assert_allclose(out["boxes"], boxes, atol=1e-3)
    points = batch["keypoints"].reshape(4, -1, 3)
    moved = affine.warp_points(points[..., :2], motion.matrix)
    found = np.asarray(out["keypoints"]).reshape(4, -1, 3)
    np.testing.assert_allclose(found[..., :2], moved, atol=1e-3)
    inside = ((moved >= 0) & (moved < 48)).all(-1)
    assert not found[..., 2][~inside].any()


# -- the door -------------------------------------------------------------------------------------


def test_nothing_is_broadcast_into_a_batch():
    first = {"boxes": np.zeros((5, 4), np.float32), "image_id": np.int32(3)}
    batch = stack([first] * 2)
    for other, message in (
        ({"boxes": np.zeros((1, 4), np.float32)}, r"record 7: boxes is float32 \[1, 4\].*\[5, 4\]"),
        ({"boxes": np.zeros((5, 4), np.float64)}, r"record 7: boxes is float64 \[5, 4\]"),
        ({}, "record 7 should have 'boxes'"),
        ({**first, "extra": np.zeros(1)}, "record 7 has 'extra'"),
    ):
        with pytest.raises(UserError, match=message):
            put(batch, 1, {**other, "image_id": np.int32(7)})
    with pytest.raises(UserError, match="photo 7: boxes"):
        put(batch, 1, first | {"boxes": np.zeros((1, 4))}, lambda record: "photo 7")


# -- views ----------------------------------------------------------------------------------------

CROPS = {
    "global": {"count": 2, "transforms": [{"name": "random_resized_crop", "size": 24}]},
    "local": {"count": 4, "transforms": [{"name": "random_resized_crop", "size": [8, 12]}]},
}


@pytest.mark.parametrize("keep_image", [False, True])
def test_a_record_may_carry_several_views(keep_image):
    step = {"name": "views", "views": CROPS, "keep_image": keep_image}
    stream = stream_of(train=True, annotations=("label",), train_transforms=(step,))
    batches = host(stream, stop=3)
    for batch in batches:
        assert batch["views_global"].shape == (4, 2, 24, 24, 3)
        assert batch["views_local"].shape == (4, 4, 8, 12, 3)
        assert batch["views_local"].dtype == np.uint8
        assert ("image" in batch) == keep_image
    views = batches[0]["views_local"]
    assert len({view.tobytes() for row in views for view in row}) == 16
    again = host(stream, stop=3)
    np.testing.assert_array_equal(again[2]["views_global"], batches[2]["views_global"])
    if not keep_image:
        on_device = next(Loader(stream, 4, DEVICE).batches())
        np.testing.assert_array_equal(on_device["views_global"], batches[0]["views_global"])


@pytest.mark.parametrize("cache", [False, True])
def test_streams_travel_to_worker_processes(cache):
    steps = ({"name": "resize", "size": 20}, {"name": "views", "views": CROPS})
    stream = stream_of(train=True, train_transforms=steps, cache=cache)
    there = pickle.loads(pickle.dumps(stream))
    for key, value in stream[3].items():
        np.testing.assert_array_equal(there[3][key], value)


def test_views_in_evaluation_are_deterministic_and_blank_where_there_is_no_record():
    whole = {"all": {"count": 1, "transforms": [{"name": "resize", "size": 16}]}}
    stream = stream_of(annotations=("label",), eval_transforms=({"name": "views", "views": whole},))
    batches = host(stream)
    assert not batches[1]["views_all"][2:].any()
    assert batches[1]["geometry"].shape == (4, 3, 3)
    with pytest.raises(UserError, match="eval_transforms are random"):
        stream_of(eval_transforms=({"name": "views", "views": CROPS},))


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (
            {"a": {"count": 2}},
            "View 'a' is given by .*'count'.*; expected 'count' and 'transforms'",
        ),
        ({"a": {"count": 0, "transforms": []}}, "count 0; expected 1 or more"),
        ({"a": {"count": 1, "transforms": [{"name": "resise"}]}}, "'resise'.*'resize'"),
    ],
)
def test_wrong_views_are_met_at_the_door(views, message):
    with pytest.raises(UserError, match=message):
        transforms.compose([{"name": "views", "views": views}])
    random = {"a": {"count": 9, "transforms": [{"name": "random_scale"}]}}
    record = {"image": np.zeros((30, 40, 3), np.uint8)}
    with pytest.raises(UserError, match="views_a differ in size"):
        transforms.compose([{"name": "views", "views": random}])(record, np.random.default_rng(0))


# -- users' own parts -----------------------------------------------------------------------------


@pytest.fixture
def own_parts():
    """A source, a host transform and an augmentation of a user's, taken away again."""
    parts = (sources.SOURCES, transforms.TRANSFORMS, AUGMENTATIONS)
    kept = [dict(registry._entries) for registry in parts]

    @sources.register("checkerboards")
    def checkerboards(data, *, count=5, side=12):
        """squares of two colours"""
        board = (np.indices((side, side)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
        images = np.tile(board, (count, 1, 1, 1))
        return lambda split: sources.Arrays(images, np.arange(count) % 2, ("even", "odd"))

    @transforms.register("turn", random=True)
    def turn(record, rng, *, degrees=90.0):
        """A turn about the centre by a random angle."""
        angle = np.deg2rad(rng.uniform(-degrees, degrees))
        (height, width), (cos, sin) = record["image"].shape[:2], (np.cos(angle), np.sin(angle))
        x, y = width / 2, height / 2
        affine = (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)
        size = (height, width)
        return transforms.Drawn(Geometry(tuple(map(float, affine)), size, size))

    @transforms.register("darken")
    def darken(record, rng, *, by=2):
        return {**record, "image": record["image"] // np.uint8(by)}

    @register("shift_values")
    def shift_values(key, images, *, by=0.25):
        return images + by

    yield
    for registry, entries in zip(parts, kept):
        registry._entries.clear()
        registry._entries.update(entries)


def test_users_add_sources_transforms_and_augmentations(own_parts):
    assert "checkerboards: squares of two colours" in sources.describe()
    data = default_config().data
    data.source, data.channels, data.options = "checkerboards", 1, {"count": 8}
    data.train_transforms = ({"name": "turn", "degrees": 10.0}, {"name": "darken", "by": 3})
    stream = open_stream(data, "train", seed=0, train=True)
    (batch, _) = host(stream)
    assert batch["image"].shape == (4, 12, 12, 1)
    assert batch["image"].max() <= 85
    assert len(np.unique(batch["image"], axis=0)) == 4
    entry = {"name": "shift_values", "by": 0.5}
    moved = augment(jax.random.key(0), {"image": jnp.asarray(batch["image"])}, [entry])
    np.testing.assert_allclose(moved["image"], batch["image"] / np.float32(255) + 0.5, atol=1e-6)
    data.options = {"cuont": 8}
    with pytest.raises(UserError, match=r"Unknown option of data source.*'cuont'.*'count'"):
        sources.open_split(data, "train")
    data.source = "checkerboard"
    with pytest.raises(UserError, match=r"Unknown data source 'checkerboard'.*'checkerboards'"):
        sources.open_split(data, "train")
    data.eval_transforms = data.train_transforms
    data.source, data.options = "checkerboards", {}
    with pytest.raises(UserError, match="eval_transforms are random"):
        open_stream(data, "train", seed=0, train=False)


def test_annotations_follow_a_turn_of_the_users(own_parts):
    step = {"name": "turn", "degrees": 40.0}
    stream = stream_of(train=True, train_transforms=(step,))
    (batch, *_) = host(stream)
    masks, valid = unpacked(batch["instance_masks"]), batch["box_valid"]
    np.testing.assert_array_equal(masks.any((2, 3)), valid)
    for row in range(4):
        for mask, box in zip(masks[row][valid[row]], batch["boxes"][row][valid[row]]):
            rows, columns = np.nonzero(mask)
            assert box[0] - 1 <= columns.min() <= columns.max() + 1 <= box[2] + 1
            assert box[1] - 1 <= rows.min() <= rows.max() + 1 <= box[3] + 1


def test_the_example_of_the_documentation_runs(own_parts):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    example = page.split("## Your own parts")[1].split("```python\n")[1].split("```")[0]
    exec(compile(example, "docs/data.md", "exec"), {"__name__": "docs_data"})
    data = default_config().data
    data.source, data.options = "mine", {"count": 6}
    data.train_transforms = ({"name": "random_column", "width": 3},)
    (batch,) = host(open_stream(data, "train", seed=0, train=True), stop=1)
    assert batch["image"].shape == (4, 8, 3, 3)
    out = augment(jax.random.key(0), {"image": jnp.ones((2, 3, 3, 3))}, [{"name": "darken"}])
    np.testing.assert_array_equal(out["image"], np.full((2, 3, 3, 3), 0.5))


# -- facts ----------------------------------------------------------------------------------------


def test_facts_of_shapes_are_stored_and_read_again():
    facts = Facts.of_stream(stream_of(train=True))
    assert facts.vocabulary["level"] == "word"
    assert facts.class_names == tuple("abcdefghijk")
    assert facts.records == {"train": 10}
    assert facts.keypoint_names == ("centre", "first", "second", "third")
    assert facts.keypoint_pairs == ()
    again = Facts.from_json(facts.to_json())
    assert again == facts
    assert again.digest() == facts.digest()
    assert facts.digest() != Facts().digest()
    cached = Facts.of_stream(stream_of(train=True, annotations=("label",), cache=True))
    assert cached == replace(facts, vocabulary=None)
    faces = Facts(
        keypoint_names=("nose", "left eye", "right eye"),
        keypoint_pairs=((1, 2),),
        skeleton=((0, 1), (0, 2)),
        things=(0, 2),
        vocabulary={"words": ["a", "b"]},
    )
    assert faces.keypoint_order == (0, 2, 1)
    assert Facts.from_json(faces.to_json()) == faces


def test_pairs_follow_from_names():
    names = ("nose", "right_eye", "left_eye", "l_ear", "r_ear", "left_hip", "left", "l_eye")
    assert mirrored_pairs(names) == ((2, 1), (3, 4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[1]", "damaged: list, no table"),
        ('{"class_name": []}', "Unknown fact of the data 'class_name'.*'class_names'"),
        ('{"class_names": [1]}', "1 is no name"),
        ('{"class_names": 3}', "damaged"),
        ('{"records": {"train": "many"}}', "damaged"),
        ('{"records": [1]}', "damaged"),
        ('{"keypoint_pairs": [[1]]}', "damaged"),
        ('{"skeleton": [1]}', "damaged"),
        ('{"things": "some"}', "damaged"),
        ('{"vocabulary": []}', "vocabulary is no table"),
    ],
)
def test_damaged_facts_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        Facts.from_json(text)
