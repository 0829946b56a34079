"""Kinds of annotation from the record to the batch: decoding, checks, moving, padding, blanks."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxvision.data import transforms
from jaxvision.data.annotations import KINDS, Kind, Settings, in_batch, named
from jaxvision.data.annotations.caption import text_of
from jaxvision.data.augment.geometric import flip_horizontal, random_affine
from jaxvision.data.codecs import encode_png
from jaxvision.data.decode import Decode
from jaxvision.data.geometry import Geometry
from jaxvision.errors import UserError

SIZE = (40, 50)
STEPS = [
    {"name": "pad_to", "size": [70, 30]},
    {"name": "pad_to", "size": [70, 90], "center": True},
    {"name": "center_crop", "size": [33, 41]},
    {"name": "center_crop", "size": 64},
    {"name": "random_crop", "size": [23, 21]},
    {"name": "resize", "size": [80, 45]},
    {"name": "resize", "size": [61, 70], "antialias": False},
    {"name": "resize_shorter", "size": 60},
    {"name": "resize_longer", "size": 100},
    {"name": "random_scale", "scale": [1.0, 2.0]},
    {"name": "random_resized_crop", "size": [60, 64], "scale": [0.2, 1.0]},
]


def scene(seed, overlapping=False):
    """Rectangles of several classes with all that can be annotated of them."""
    rng = np.random.default_rng(seed)
    index, boxes = np.zeros(SIZE, np.uint8), []
    masks = []
    for number in range(1, int(rng.integers(1, 5)) + 1):
        top, left = int(rng.integers(0, 30)), int(rng.integers(0, 40))
        bottom, right = int(rng.integers(top + 4, 41)), int(rng.integers(left + 4, 51))
        index[top:bottom, left:right] = number
        masks.append(np.zeros(SIZE, bool))
        masks[-1][top:bottom, left:right] = True
        boxes.append([left, top, right, bottom])
    boxes = np.float32(boxes)
    corner = boxes[:, None, :2] + 0.5
    points = np.concatenate([corner, np.ones_like(corner[..., :1])], -1)
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) // 2 + 0.5
    points = np.concatenate([points, np.concatenate([centre, points[..., 2:]], -1)], 1)
    labels = rng.integers(0, 7, len(boxes))
    record = {
        "image": np.repeat(index[..., None] * np.uint8(50), 3, -1),
        "label": 3,
        "segmentation": np.concatenate([[255], labels]).astype(np.uint8)[index],
        "boxes": boxes,
        "box_label": labels,
        "box_crowd": rng.random(len(boxes)) < 0.3,
        "keypoints": points.astype(np.float32),
        "proposals": boxes[::-1],
        "caption": "Some rectangles, ä ö ü.".encode(),
    }
    return record | ({"instance_masks": np.array(masks)} if overlapping else {"instances": index})


def decoded(record, **settings):
    return Decode(3, tuple(KINDS.values()), Settings(**{"num_classes": 7, **settings}))(
        record, "rec"
    )


def bits_of(row):
    """How many pixels the masks of a batch's row have."""
    return np.bitwise_count(row["instance_masks"]).sum((1, 2), dtype=int)


# -- moving ---------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(STEPS), st.integers(0, 2**32), st.booleans())
def test_everything_follows_the_image_and_is_filtered_together(step, seed, overlapping):
    record = decoded(scene(seed, overlapping))
    out = transforms.compose([step])(record, np.random.default_rng(seed))
    geometry = out["geometry"]
    height, width = out["image"].shape[:2]
    assert geometry.size == (height, width)
    # Independently: where each pixel of the output comes from.
    rows, columns = np.mgrid[:height, :width] + 0.5
    inverse = np.linalg.inv(geometry.matrix)
    across, down = inverse[0, 0] * columns + inverse[0, 2], inverse[1, 1] * rows + inverse[1, 2]
    x, y = np.floor(across + 1e-6).astype(int), np.floor(down + 1e-6).astype(int)
    # A centre on the border of two pixels may fall to either.
    firm = (np.abs(across - across.round()) > 1e-6) & (np.abs(down - down.round()) > 1e-6)
    inside = (x >= 0) & (x < SIZE[1]) & (y >= 0) & (y < SIZE[0])

    def moved(array, fill):
        return np.where(inside, array[y.clip(0, 39), x.clip(0, 49)], fill)

    expected = moved(record["segmentation"], 255)
    np.testing.assert_array_equal(out["segmentation"][firm], expected[firm])
    masks = record["instance_masks"].stack() if overlapping else None
    if masks is None:
        masks = record["instances"] == np.arange(1, len(record["boxes"]) + 1)[:, None, None]
    masks = np.array([moved(mask, False) for mask in masks])
    scale, shift = geometry.matrix[[0, 1], [0, 1]], geometry.matrix[:2, 2]
    boxes, proposals = (
        np.clip(record[key].reshape(-1, 2, 2) * scale + shift, 0, [width, height]).reshape(-1, 4)
        for key in ("boxes", "proposals")
    )
    kept = masks.any((1, 2)) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    np.testing.assert_allclose(out["boxes"], boxes[kept], atol=1e-3)
    left = (proposals[:, 2:] > proposals[:, :2]).all(1)
    np.testing.assert_allclose(out["proposals"], proposals[left], atol=1e-3)
    for key in ("box_label", "box_crowd"):
        np.testing.assert_array_equal(out[key], record[key][kept])
    if overlapping:
        crops = out["instance_masks"]
        assert crops.size == (height, width)
        np.testing.assert_array_equal(crops.stack()[:, firm], masks[kept][:, firm])
    else:
        for number, mask in enumerate(masks[kept], start=1):
            np.testing.assert_array_equal((out["instances"] == number)[firm], mask[firm])
        assert out["instances"].max() <= kept.sum()
    points = record["keypoints"][..., :2] * scale + shift
    np.testing.assert_allclose(out["keypoints"][..., :2], points[kept], atol=1e-3)
    shown = ((points >= 0) & (points < [width, height])).all(-1)
    clear = (np.abs(points) > 1e-3).all(-1) & (np.abs(points - [width, height]) > 1e-3).all(-1)
    np.testing.assert_array_equal((out["keypoints"][..., 2] == shown[kept])[clear[kept]], True)
    assert out["label"] == 3


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(STEPS), st.integers(0, 2**32))
def test_marked_pixels_are_found_where_boxes_and_points_say(step, seed):
    record = decoded(scene(seed))
    for number, box in enumerate(record["boxes"].astype(int), start=1):
        image = np.zeros((*SIZE, 3), np.uint8)
        image[box[1] : box[3], box[0] : box[2]] = 255
        alone = {
            "image": image,
            "boxes": record["boxes"][number - 1 : number],
            "keypoints": record["keypoints"][number - 1 : number],
        }
        out = transforms.compose([step])(alone, np.random.default_rng(seed))
        bright = out["image"][..., 0] > 127
        if not len(out["boxes"]):
            assert not bright.any()
            continue
        if bright.any():
            rows, columns = np.nonzero(bright)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(out["boxes"][0] - tight).max() <= 1
        x, y, visible = out["keypoints"][0, 1]
        if visible and min(out["boxes"][0][2:] - out["boxes"][0][:2]) > 2:
            assert bright[int(y), int(x)]


def test_objects_that_leave_the_image_leave_together():
    record = decoded(
        {
            "image": np.zeros((*SIZE, 3), np.uint8),
            "boxes": np.float32([[0, 0, 10, 10], [20, 20, 40, 40], [30, 0, 50, 20]]),
            "box_label": np.array([4, 5, 6]),
            "keypoints": np.float32([[[5, 5, 1]], [[30, 30, 1]], [[40, 10, 1]]]),
            "instances": np.kron(np.array([[1, 3], [0, 2]], np.uint8), np.ones((20, 25), np.uint8)),
        }
    )
    out = transforms.move(
        record, transforms.Drawn(Geometry.crop(SIZE, 0, 15, 40, 35)), tuple(KINDS.values())
    )
    assert out["box_label"].tolist() == [5, 6]
    assert sorted(np.unique(out["instances"])) == [0, 1, 2]
    assert (out["instances"] == 2)[:20, 10:].all()
    np.testing.assert_array_equal(out["boxes"], [[5, 20, 25, 40], [15, 0, 35, 20]])
    row = KINDS["instances"].pad(out, "rec", Settings(max_instances=4))
    assert row["box_valid"].tolist() == [True, True, False, False]
    assert bits_of(row).tolist() == [20 * 25, 20 * 25, 0, 0]
    assert row["mask_valid"].tolist() == [True, True, False, False]


def test_a_host_transform_may_not_mirror_key_points():
    record = decoded(scene(0))
    with pytest.raises(UserError, match="flip on the device"):
        KINDS["instances"].move(record, Geometry.flip(SIZE))
    moved = KINDS["segmentation"].move(record, Geometry.flip(SIZE))
    np.testing.assert_array_equal(moved["segmentation"], record["segmentation"][:, ::-1])


# -- decoding and checks --------------------------------------------------------------------------


def test_encoded_annotations_are_decoded():
    record = scene(3)
    plain = decoded(record)
    encoded = dict(record)
    for key in ("image", "segmentation", "instances"):
        encoded[key] = encode_png(record[key])
    out = decoded(encoded)
    for key in plain:
        np.testing.assert_array_equal(out[key], plain[key])
    assert out["captions"] == ("Some rectangles, ä ö ü.",)
    types = {k: v.dtype.name for k, v in out.items() if isinstance(v, np.ndarray)}
    assert types == {
        "image": "uint8",
        "segmentation": "uint8",
        "boxes": "float32",
        "box_label": "int32",
        "box_crowd": "bool",
        "instances": "uint8",
        "mask_valid": "bool",
        "keypoints": "float32",
        "labels": "int64",
        "proposals": "float32",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.zeros(4)}, r"rec: boxes has the shape \[4\]; expected \[objects, 4\]"),
        ({"boxes": np.float32([[3, 3, 1, 5]])}, "no \\(x0, y0, x1, y1\\)"),
        ({"box_label": np.array([9])}, r"object of class 9, but there are 7 classes \(0 to 6\)"),
        ({"box_label": np.array([1, 2])}, "rec has 1 boxes, but box_label of 2"),
        ({"keypoints": np.zeros((1, 3))}, r"expected \[objects, any, 3\]"),
        ({"instances": np.full(SIZE, 2, np.uint8)}, "numbered from 2 to 2; .* 1 to 1"),
        ({"instances": np.zeros((3, 4), np.uint8)}, "rec: the image is 50x40 pixels, its mask 4x3"),
        ({"instance_masks": np.zeros((1, 3, 4), bool)}, "50x40 pixels, its masks 4x3"),
        ({"instance_masks": np.zeros((2, *SIZE), bool)}, "1 boxes, but instance_masks of 2"),
        ({"segmentations": []}, "1 boxes, but segmentations of 0"),
        ({"segmentations": [[[1, 2, 3, 4]]]}, "rec: object 0 has a polygon of 4 numbers"),
        ({"segmentations": ["annotation 7 is wrong"]}, "rec: annotation 7 is wrong"),
        (
            {"segmentations": [{"size": [3, 4], "counts": [12]}]},
            "rec: object 0 has run lengths of 4x3 pixels, the image has 50x40",
        ),
        ({"caption": b"\xff\xfe"}, "A caption of rec is not UTF-8"),
        ({"caption": 3}, "A caption of rec is 3; expected text"),
        ({"captions": ["a dog", None]}, "A caption of rec is None; expected text"),
        ({"captions": []}, "rec has no caption; expected one or more"),
        ({"captions": ["a dog", b" \n"]}, "rec has an empty caption"),
        ({"caption": ""}, "rec has an empty caption"),
    ],
)
def test_wrong_annotations_are_met_at_the_door(change, message):
    record = {
        "image": np.zeros((*SIZE, 3), np.uint8),
        "boxes": np.float32([[1, 2, 30, 20]]),
        "box_label": np.array([1]),
    }
    with pytest.raises(UserError, match=message):
        decoded({**record, **change}, num_classes=7)
    del record["box_label"]
    with pytest.raises(UserError, match="no 'box_label'"):
        decoded(record)


def test_boxes_are_clipped_to_their_image_and_empty_ones_left_out():
    record = {
        "image": np.zeros((*SIZE, 3), np.uint8),
        "boxes": np.float32([[-5, 3, 60, 20], [7, 7, 7, 9], [1, 1, 2, 2]]),
        "box_label": np.array([1, 2, 3]),
    }
    out = decoded(record)
    np.testing.assert_array_equal(out["boxes"], [[0, 3, 50, 20], [1, 1, 2, 2]])
    assert out["box_label"].tolist() == [1, 3]
    none = decoded({**record, "boxes": np.zeros((0, 4)), "box_label": np.zeros(0, int)})
    row = KINDS["instances"].pad(none, "rec", Settings(max_instances=2))
    assert not row["box_valid"].any()


# -- padding --------------------------------------------------------------------------------------


def test_rows_have_the_shape_of_the_limit():
    limits = Settings(
        num_classes=7, max_instances=6, max_proposals=5, max_caption=40, max_captions=2
    )
    shapes = []
    for seed in (1, 2, 3):
        record = decoded(scene(seed))
        row = {}
        for kind in KINDS.values():
            row |= kind.pad(record, "rec", limits)
        shapes.append({key: (value.shape, value.dtype.name) for key, value in row.items()})
        count = len(record["boxes"])
        assert row["box_valid"].sum() == count
        for key in ("boxes", "box_label", "box_crowd", "keypoints"):
            np.testing.assert_array_equal(row[key][:count], record[key])
            assert not row[key][count:].any()
        assert text_of(row["caption"][0]) == record["captions"][0]
        assert row["caption_valid"].tolist() == [True, False]
        for kind in KINDS.values():
            blank = kind.blank(row)
            assert blank.keys() == {key for key in kind.batch_keys if key in row}
            for key, value in blank.items():
                assert value.shape == np.shape(row[key])
                assert (value == (255 if key == "segmentation" else 0)).all()
    assert shapes[0] == shapes[1] == shapes[2]
    assert shapes[0] == {
        "label": ((), "int32"),
        "segmentation": (SIZE, "uint8"),
        "boxes": ((6, 4), "float32"),
        "box_label": ((6,), "int32"),
        "box_valid": ((6,), "bool"),
        "box_crowd": ((6,), "bool"),
        "instance_masks": ((6, 40, 7), "uint8"),
        "mask_valid": ((6,), "bool"),
        "keypoints": ((6, 2, 3), "float32"),
        "proposals": ((5, 4), "float32"),
        "proposal_valid": ((5,), "bool"),
        "labels": ((7,), "bool"),
        "caption": ((2, 40), "uint8"),
        "caption_valid": ((2,), "bool"),
    }


def test_objects_without_a_mask_stay_with_their_box():
    square = [[20, 10, 30, 10, 30, 20, 20, 20]]
    record = decoded({
        "image": np.zeros((*SIZE, 3), np.uint8),
        "boxes": np.float32([[0, 0, 10, 10], [20, 10, 30, 20], [40, 30, 50, 40]]),
        "box_label": np.array([4, 5, 6]),
        "segmentations": [None, square, []],
    })  # fmt: skip
    assert record["mask_valid"].tolist() == [False, True, False]
    kinds = (KINDS["instances"],)
    out = transforms.move(record, transforms.Drawn(Geometry.crop(SIZE, 0, 0, 40, 25)), kinds)
    assert out["box_label"].tolist() == [4, 5]
    row = kinds[0].pad(out, "rec", Settings(max_instances=3))
    assert row["mask_valid"].tolist() == [False, True, False]
    assert bits_of(row).tolist() == [0, 50, 0]
    batch = {"image": jnp.zeros((1, 40, 25, 3))} | {k: jnp.asarray(v[None]) for k, v in row.items()}
    motion = flip_horizontal(jax.random.key(0), (1, 40, 25, 3), probability=1.0)
    moved = jax.jit(lambda batch: kinds[0].move_on_device(batch, motion))(batch)
    assert moved["box_valid"].tolist() == [[True, True, False]]
    mirrored = np.unpackbits(row["instance_masks"], axis=-1, count=25)[..., ::-1]
    np.testing.assert_array_equal(moved["instance_masks"][0], np.packbits(mirrored, axis=-1))


def test_limits_say_which_key_to_raise():
    with pytest.raises(UserError, match=r"rec has 26 bytes; raise data\.max_caption, which is 25"):
        decoded(scene(1), max_caption=25)
    assert decoded(scene(1), max_caption=26)["captions"]


def test_of_too_many_objects_the_largest_stay_and_crowds_go_first():
    record = {
        "image": np.zeros((*SIZE, 3), np.uint8),
        "boxes": np.float32([[0, 0, 5, 5], [0, 0, 9, 9], [0, 0, 40, 40], [0, 0, 7, 7]]),
        "box_label": np.arange(4),
        "box_crowd": np.array([False, False, True, False]),
        "box_area": np.float32([1, 2, 3, 4]),
        "instances": np.kron(np.array([[1, 2], [3, 4]], np.uint8), np.ones((20, 25), np.uint8)),
    }
    kind, record = KINDS["instances"], decoded(record)
    few = Settings(max_instances=2)
    assert kind.left_out(record, few) == 2
    row = kind.pad(record, "rec", few)
    assert row["box_label"].tolist() == [1, 3]
    assert row["box_area"].tolist() == [2, 4]
    assert row["box_valid"].all()
    kept = np.packbits(record["instances"] == 4, axis=1)
    np.testing.assert_array_equal(row["instance_masks"][1], kept)
    three = kind.pad(record, "rec", Settings(max_instances=3))
    assert three["box_label"].tolist() == [0, 1, 3]
    assert kind.left_out(record, Settings(max_instances=4)) == 0
    assert kind.pad(record, "rec", Settings(max_instances=4))["box_crowd"].tolist()[2]


def test_the_area_of_an_annotation_follows_the_scale_and_not_the_crop():
    record = decoded({
        "image": np.zeros((*SIZE, 3), np.uint8),
        "boxes": np.float32([[0, 0, 10, 10], [40, 30, 50, 40]]),
        "box_label": np.array([4, 5]),
        "box_area": np.array([60, 70]),
    })  # fmt: skip
    kinds = (KINDS["instances"],)
    steps = [
        {"name": "resize", "size": [80, 200]},  # twice as tall, four times as wide
        {"name": "center_crop", "size": [60, 180]},
    ]
    out = transforms.compose(steps, kinds)(record, np.random.default_rng(0))
    assert out["box_area"].dtype == np.float32
    assert out["box_area"].tolist() == [480, 560]
    gone = transforms.move(record, transforms.Drawn(Geometry.crop(SIZE, 0, 0, 20, 20)), kinds)
    assert gone["box_area"].tolist() == [60]
    row = kinds[0].pad(gone, "rec", Settings(max_instances=3))
    assert row["box_area"].tolist() == [60, 0, 0]
    batch = {
        "image": jnp.zeros((1, 20, 20, 3)),
        **{key: jnp.asarray(row[key][None]) for key in row},
    }
    motion = random_affine(jax.random.key(0), (1, 20, 20, 3), scale=(3.0, 3.0))
    moved = kinds[0].move_on_device(batch, motion)
    np.testing.assert_allclose(moved["box_area"], [[540, 0, 0]], rtol=1e-6)


def test_boxes_in_parts_of_the_sides_become_pixels():
    record = {
        "image": np.zeros((*SIZE, 3), np.uint8),
        "relative_boxes": np.float32([[0.1, 0.25, 0.5, 1.0], [-0.2, 0.5, 0.2, 1.5]]),
        "box_label": np.array([1, 2]),
    }
    out = decoded(record)
    np.testing.assert_allclose(out["boxes"], [[5, 10, 25, 40], [0, 20, 10, 40]], rtol=1e-6)
    assert "relative_boxes" not in out
    assert KINDS["instances"].present(record)


def test_boxes_of_an_image_of_another_size_are_refused():
    record = {
        "image": np.zeros((*SIZE, 3), np.uint8),
        "boxes": np.float32([[1, 2, 3, 4]]),
        "box_label": np.array([1]),
        "annotated_size": np.array([40, 50]),
    }
    assert "annotated_size" not in decoded(record)
    with pytest.raises(UserError, match=r"rec: the image is 50x40 pixels, its boxes are of 50x80"):
        decoded({**record, "annotated_size": (80, 50)})
    photo = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 50)).save(photo, "JPEG", exif=exif)  # shown as 50x40
    turned = {**record, "image": photo.getvalue()}
    assert decoded(turned)["image"].shape == (*SIZE, 3)
    with pytest.raises(UserError, match=r"orientation 6.* its boxes are of 40x50, as the photo"):
        decoded({**turned, "annotated_size": (50, 40)})


def test_a_split_to_train_on_has_an_object():
    kind, none = KINDS["instances"], {"boxes": np.zeros((0, 4)), "box_label": np.zeros(0)}
    with pytest.raises(UserError, match="None of the 2 images to train on has an object"):
        kind.survey([(none, "a"), (none, "b")], Settings())
    one = {"relative_boxes": np.ones((1, 4)), "box_label": np.zeros(1)}
    kind.survey([(none, "a"), (one, "b")], Settings())
    kind.survey([({"label": 1}, "a")], Settings())


def test_kinds_by_name():
    assert named(["label", "instances"]) == (KINDS["instances"], KINDS["label"])
    with pytest.raises(UserError, match=r"Unknown annotation 'instance'.*'instances'"):
        named(["instance"])
    assert in_batch({"box_valid": 1, "image": 2}) == (KINDS["instances"],)
    assert all(isinstance(kind, Kind) for kind in KINDS.values())
